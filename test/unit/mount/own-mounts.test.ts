import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MountInfo } from '../../../node/mount/placement/mountinfo.ts'
import { lastingMounts, ownMountsOf, type OwnMount } from '../../../node/mount/placement/own-mounts.ts'

function own(
  mountPoint: string,
  device: string,
  { lower, bound = false, ...more }: { lower?: string; bound?: boolean } & Partial<MountInfo> = {},
): OwnMount {
  const overlay = lower !== undefined
  return {
    id: 1,
    parent: 0,
    device,
    root: '/',
    mountPoint,
    type: overlay ? 'overlay' : 'erofs',
    source: '',
    options: overlay ? `rw,lowerdir=${lower},upperdir=/s/u` : 'ro',
    bound,
    ...more,
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

test('the directory of a drive lasts with its two files where its image is native, and ends where it is not', () => {
  const drive = (id: number, user: string, device: string, image: string): OwnMount[] =>
    [`/s/drives/${device}`, user].flatMap((directory, i) => {
      const [parent, bound] = [id + i, directory === user]
      return [
        own(directory, device, { id: parent, type: 'tmpfs', bound }),
        own(`${directory}/rootfs.img`, image, { id: 0, parent, root: '/rootfs.img', bound }),
        own(`${directory}/scratch.img`, '8:1', { id: 0, parent, root: '/s/scratch/1/scratch.img', bound }),
      ]
    })
  const native = [own('/s/native/drives/one', '0:1', { id: 0 }), ...drive(10, '/user/native', '0:8', '0:1')]
  const fuse = [own('/s/mnt', '0:3', { id: 0 }), ...drive(20, '/user/fuse', '0:9', '0:3')]
  assert.deepEqual(lastingMounts([...fuse, ...native], '/s/native'), native)
})

test('a file of the host’s disk that is bound below the state directory makes no other mount of the disk ours', () => {
  const mounts = [
    own('/', '8:1', { id: 1 }),
    own('/home', '8:1', { id: 2, parent: 1, root: '/home' }),
    own('/s/drives/a', '0:8', { id: 3, parent: 1, type: 'tmpfs' }),
    own('/s/drives/a/scratch.img', '8:1', { id: 4, parent: 3, root: '/s/scratch/a/scratch.img' }),
    own('/user/a', '0:8', { id: 5, parent: 1, type: 'tmpfs' }),
    own('/user/a/scratch.img', '8:1', { id: 6, parent: 5, root: '/s/scratch/a/scratch.img' }),
    own('/user/b', '0:7', { id: 7, parent: 1, type: 'tmpfs' }),
  ]
  const found = ownMountsOf(mounts, ['/s/mnt', '/s/drives']).map(({ id, bound }) => [id, bound])
  assert.deepEqual(found, [
    [3, false],
    [4, false],
    [5, true],
    [6, true],
  ])
})

test('mounts of users are ours also when what they were bound from was unmounted by hand', () => {
  const mounts = [
    own('/user/drive', '0:3', { id: 1, root: '/one', type: 'fuse.p2pfs', source: 'p2pfs@/s/mnt' }),
    own('/user/tree', '0:4', { id: 2, source: '/s/mnt/one/rootfs.img' }),
    own('/user/native', '0:5', { id: 3, source: '/s/native/images/one.tree' }),
    own('/user/writable', '0:6', { id: 4, lower: '/s/trees/one', source: 'p2pfs@/s/writable/a/merged' }),
    own('/user/scratch', '0:7', { id: 5, type: 'tmpfs', source: 'p2pfs@/s/drives/a' }),
    own('/user/scratch/scratch.img', '8:1', { id: 6, parent: 5, root: '/s/scratch/a/scratch.img' }),
    own('/other/drive', '0:8', { id: 7, root: '/one', type: 'fuse.p2pfs', source: 'p2pfs@/s-other/mnt' }),
    own('/other/tmp', '0:9', { id: 8, type: 'tmpfs', source: 'p2pfs' }),
  ]
  const roots = ['/s/mnt', '/s/trees', '/s/native', '/s/writable', '/s/drives']
  assert.deepEqual(
    ownMountsOf(mounts, roots).map(({ id, bound }) => [id, bound]),
    [1, 2, 3, 4, 5, 6].map((id) => [id, true]),
  )
})
