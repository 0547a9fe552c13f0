import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { identityOf, locate, parseMountInfo, readMounts } from '../../../node/mount/placement/mountinfo.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

test('lines of mountinfo are read, whatever optional fields and escapes they have', () => {
  const text = [
    String.raw`36 35 98:0 /mnt1 /mnt\0402\134 rw,noatime master:1 shared:3 - ext3 /dev/root rw,errors=continue`,
    '217 36 0:52 / /run/vm1 ro - fuse.p2pfs p2pfs ro,user_id=0',
    '',
  ].join('\n')
  const [first, second, ...others] = parseMountInfo(text)
  assert.deepEqual(first, {
    id: 36,
    parent: 35,
    device: '98:0',
    root: '/mnt1',
    mountPoint: '/mnt 2\\',
    type: 'ext3',
    source: '/dev/root',
    options: 'rw,errors=continue',
  })
  assert.deepEqual([second?.id, second?.type, second?.source], [217, 'fuse.p2pfs', 'p2pfs'])
  assert.deepEqual(others, [])
})

test('a path is located however it is spelt; a directory in a mount is none itself', async (t) => {
  const directory = await realpath(temporaryDirectory(t))
  mkdirSync(join(directory, 'real'))
  symlinkSync('real', join(directory, 'link'))
  assert.deepEqual(await locate(join(directory, 'link/')), { path: join(directory, 'real'), mount: undefined })
  assert.equal(await locate(join(directory, 'absent')), undefined)
  const proc = (await locate('/proc/self/..'))?.mount
  assert.deepEqual([proc?.mountPoint, proc?.type], ['/proc', 'proc'])
  assert.equal((await readMounts()).filter((mount) => identityOf(mount) === identityOf(proc!)).length, 1)
})
