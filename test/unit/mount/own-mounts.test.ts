import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lastingMounts, type OwnMount } from '../../../node/mount/placement/own-mounts.ts'

function own(
  mountPoint: string,
  device: string,
  { lower, bound = false }: { lower?: string; bound?: boolean } = {},
): OwnMount {
  const overlay = lower !== undefined
  return {
    id: 1,
    device,
    root: '/',
    mountPoint,
    type: overlay ? 'overlay' : 'erofs',
    source: '',
    options: overlay ? `rw,lowerdir=${lower},upperdir=/s/u` : 'ro',
    bound,
  }
}

test('mounts that need no daemon are those of native images, and writable trees on these with their disks', () => {
  const lasting = [
    own('/s/native/trees/one', '0:1'),
    own('/user/tree', '0:1', { bound: true }),
    own('/s/writable/a/disk', '7:1'),
    own('/s/writable/a/merged', '0:2', { lower: '/s/native/trees/one' }),
    own('/user/writable', '0:2', { lower: '/s/native/trees/one', bound: true }),
  ]
  const others = [
    own('/s/mnt', '0:3'),
    own('/s/trees/one', '0:4'),
    own('/user/other', '0:4', { bound: true }),
    own('/s/writable/b/disk', '7:2'),
    own('/s/writable/b/merged', '0:5', { lower: '/s/trees/one' }),
    own('/user/nearly', '0:6', { lower: '/s/native-too/one', bound: true }),
  ]
  assert.deepEqual(lastingMounts([...others, ...lasting], '/s/native'), lasting)
})
