import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { digestOf } from '../../../../protocol/digest.ts'
import { planExt4 } from '../../../../node/rootfs/ext4/plan.ts'
import type { RootfsInode } from '../../../../node/rootfs/tree/rootfs-inode.ts'
import { RootfsTree } from '../../../../node/rootfs/tree/rootfs-tree.ts'

export const seed = digestOf(Buffer.from('a seed'))

/** An inode with the inodes below it. The same object under several names is a hard link. */
export interface ModelInode extends RootfsInode {
  children?: ReadonlyMap<string, ModelInode>
}

export function inode(type: RootfsInode['type'], more: Partial<ModelInode> = {}): ModelInode {
  return {
    type,
    mode: type === 'directory' ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    mtime: { seconds: 1_700_000_000, nanoseconds: 0 },
    xattrs: [],
    linkTarget: '',
    device: { major: 0, minor: 0 },
    sizeBytes: 0,
    layer: 0,
    extents: [],
    ...more,
  }
}

export function directory(
  children: Record<string, ModelInode> | Map<string, ModelInode>,
  more: Partial<ModelInode> = {},
): ModelInode {
  return inode('directory', {
    children: children instanceof Map ? children : new Map(Object.entries(children)),
    ...more,
  })
}

export function treeOf(root: ModelInode): RootfsTree {
  const tree = new RootfsTree(root)
  const numbers = new Map<ModelInode, number>()
  const fill = (directory: number, { children = new Map<string, ModelInode>() }: ModelInode): void => {
    for (const [name, child] of children) {
      const known = numbers.get(child)
      const number = known ?? tree.inodes.add(child)
      numbers.set(child, number)
      tree.entries.set(directory, name, number)
      if (known === undefined) fill(number, child)
    }
  }
  fill(tree.root, root)
  return tree
}

/** Writes the image to a file; `segment` has the bytes of the layers' data segments at their offsets. */
export function writeImage(
  path: string,
  root: ModelInode,
  layerBytes: number[],
  segment: { layer: number; offset: number; bytes: Uint8Array }[] = [],
): void {
  const plan = planExt4(treeOf(root), layerBytes, seed)
  const fd = openSync(path, 'w')
  let at = 0
  for (const piece of plan.pieces()) {
    if (piece.length % 4096 !== 0) throw new Error('piece is not whole blocks')
    writeSync(fd, piece)
    at += piece.length
  }
  if (at !== plan.metadataBytes) throw new Error(`metadata has ${at} bytes, planned were ${plan.metadataBytes}`)
  ftruncateSync(fd, plan.sizeBytes)
  const starts = layerBytes.map((_, i) => plan.metadataBytes + layerBytes.slice(0, i).reduce((sum, n) => sum + n, 0))
  for (const { layer, offset, bytes } of segment) writeSync(fd, bytes, 0, bytes.length, starts[layer]! + offset)
  closeSync(fd)
}

/** The output of e2fsck for an image, with its exit status. */
export function check(path: string): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('e2fsck', ['-fn', path], { encoding: 'utf8' })
  return { status, output: `${stdout}${stderr}`.replace(/^e2fsck .*\n/m, '') }
}

/** Mounts the image read-only while `use` runs. */
export function withMount<T>(path: string, use: (mountPoint: string) => T): T {
  const mountPoint = join(`${path}.mnt`)
  mkdirSync(mountPoint)
  execFileSync('mount', ['-t', 'ext4', '-o', 'ro,loop', path, mountPoint])
  try {
    return use(mountPoint)
  } finally {
    execFileSync('umount', [mountPoint])
  }
}
