import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { KernelMounter } from '../../../node/mount/placement/kernel-mounter.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

test('a bind with options never stands on the directory without them', async (t) => {
  const place = join(temporaryDirectory(t), 'place')
  const calls: string[] = []
  const mounter = new KernelMounter({
    run: async (command, argv) => {
      calls.push([command, ...argv].join(' '))
      return { ok: true, message: '' }
    },
  })
  await mounter.bindWith(['ro', 'nosuid'], '/source', '/target', place)
  assert.deepEqual(calls, [
    `mount --bind /source ${place}`,
    `mount -o remount,bind,ro,nosuid ${place}`,
    `mount --bind ${place} /target`,
  ])
})

test('a bind whose options the kernel refuses does not come to stand on the directory', async (t) => {
  const calls: string[] = []
  const mounter = new KernelMounter({
    run: async (_command, argv) => {
      calls.push(argv.join(' '))
      return { ok: !argv.join(' ').startsWith('-o remount'), message: 'refused' }
    },
  })
  await assert.rejects(mounter.bindWith(['nosuid'], '/source', '/target', join(temporaryDirectory(t), 'place')), {
    code: 'unavailable',
  })
  assert.ok(!calls.some((call) => call.endsWith('/target')), calls.join())
})
