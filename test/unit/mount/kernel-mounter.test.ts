import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { KernelMounter } from '../../../node/mount/placement/kernel-mounter.ts'
import { bindProgram } from '../../../node/mount/placement/system-calls.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** A mounter whose tools do as `answer` says, and the command lines that it has run. */
function mounterWhere(
  answer: (line: string) => boolean,
  message = 'refused',
): { mounter: KernelMounter; lines: string[] } {
  const lines: string[] = []
  const mounter = new KernelMounter({
    run: async (command, argv) => {
      const line = [command, ...argv.map((word) => (word === bindProgram ? 'BIND' : word))].join(' ')
      lines.push(line)
      return { ok: answer(line), message }
    },
  })
  return { mounter, lines }
}

test('a bind with options is one process where the kernel sets them before the mount stands', async (t) => {
  const place = join(temporaryDirectory(t), 'place')
  const { mounter, lines } = mounterWhere(() => true)
  await mounter.bindWith(['ro', 'nosuid', 'nodev'], '/source', '/target', place)
  await mounter.bindWith(['nosuid', 'nodev'], '/source', '/target', place)
  assert.deepEqual(lines, ['perl -e BIND /source /target 7', 'perl -e BIND /source /target 6'])
})

test('elsewhere a bind with options never stands on the directory without them', async (t) => {
  const place = join(temporaryDirectory(t), 'place')
  const { mounter, lines } = mounterWhere((line) => !line.startsWith('perl'))
  await mounter.bindWith(['ro', 'nosuid'], '/source', '/target', place)
  assert.deepEqual(lines.slice(1), [
    `mount --bind /source ${place}`,
    `mount -o remount,bind,ro,nosuid ${place}`,
    `mount --bind ${place} /target`,
  ])
})

test('a bind whose options the kernel refuses does not come to stand on the directory', async (t) => {
  const { mounter, lines } = mounterWhere((line) => line.startsWith('mount --bind'))
  await assert.rejects(mounter.bindWith(['nosuid'], '/source', '/target', join(temporaryDirectory(t), 'place')), {
    code: 'unavailable',
  })
  assert.ok(!lines.some((line) => line.startsWith('mount') && line.endsWith('/target')), lines.join())
})

test('what mount(8) says stands in a sentence that says what to do', async () => {
  const said = 'mount: /t: failed to setup loop device for /disk.img.\n       dmesg(1) may have more information.'
  const { mounter } = mounterWhere(() => false, said)
  await assert.rejects(mounter.bind('/source', '/t'), {
    message:
      'cannot mount on /t: failed to setup loop device for /disk.img; modprobe loop, or give the container its devices',
  })
})
