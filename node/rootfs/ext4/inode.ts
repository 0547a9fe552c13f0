import { P2pfsError } from '../../../protocol/errors.ts'
import type { RootfsInode } from '../tree/rootfs-inode.ts'
import { typeBits } from '../tree/inode-types.ts'
import { extraInodeBytes, inodeBytes, inodeFlags, maxDirectoryLinks } from './format.ts'

const firstSecond = -(2 ** 31)
const lastSecond = 2 ** 31 - 1 + 3 * 2 ** 32

/** The parts of an inode that depend on the layout. */
export interface InodeBody {
  links: number
  sizeBytes: number
  /** Number of its blocks anywhere on the device. */
  blocks: number
  /** Root of the extent tree, device number, or short link target: 60 bytes. */
  block: Buffer
  extents: boolean
  indexed: boolean
  /** Device block of the extended attributes, or 0. */
  xattrBlock: number
  inInodeXattrs: Buffer | undefined
}

export function encodeInode(node: RootfsInode, body: InodeBody): Buffer {
  const out = Buffer.alloc(inodeBytes)
  out.writeUInt16LE(typeBits[node.type] | node.mode, 0)
  out.writeUInt16LE(node.uid & 0xffff, 2)
  out.writeUInt32LE(body.sizeBytes % 2 ** 32, 4)
  out.writeUInt16LE(node.gid & 0xffff, 24)
  // 1 stands for "many": feature dir_nlink.
  out.writeUInt16LE(node.type === 'directory' && body.links >= maxDirectoryLinks ? 1 : body.links, 26)
  out.writeUInt32LE(body.blocks * 8, 28)
  out.writeUInt32LE((body.extents ? inodeFlags.extents : 0) | (body.indexed ? inodeFlags.index : 0), 32)
  out.set(body.block, 40)
  out.writeUInt32LE(body.xattrBlock, 104)
  out.writeUInt32LE(Math.floor(body.sizeBytes / 2 ** 32), 108)
  out.writeUInt16LE(node.uid >>> 16, 120)
  out.writeUInt16LE(node.gid >>> 16, 122)
  out.writeUInt16LE(extraInodeBytes, 128)
  const { seconds, extra } = encodeTime(node.mtime)
  // Times of access, change, modification and birth. The layers have one time, which stands for all four.
  for (const [offset, extraOffset] of [
    [8, 140],
    [12, 132],
    [16, 136],
    [144, 148],
  ] as const) {
    out.writeInt32LE(seconds, offset)
    out.writeUInt32LE(extra, extraOffset)
  }
  if (body.inInodeXattrs !== undefined) out.set(body.inInodeXattrs, 128 + extraInodeBytes)
  return out
}

/**
 * ext4 has 34 bits of seconds, 1901 to 2446; the two high bits share a word with the nanoseconds. Times beyond become
 * the first or last second without a fraction, as in timestamp_truncate of fs/inode.c.
 */
function encodeTime({ seconds, nanoseconds }: RootfsInode['mtime']): { seconds: number; extra: number } {
  const clamped = Math.min(Math.max(seconds, firstSecond), lastSecond)
  const fraction = clamped === firstSecond || clamped === lastSecond ? 0 : nanoseconds
  const low = clamped | 0
  const epoch = Math.round((clamped - low) / 2 ** 32)
  return { seconds: low, extra: ((fraction << 2) | epoch) >>> 0 }
}

/**
 * i_block of a device: the old encoding in the first word where the number fits, else the new one in the second.
 * @throws unsupported for a number that Linux cannot have
 */
export function encodeDevice({ major, minor }: RootfsInode['device']): Buffer {
  if (major >= 2 ** 12 || minor >= 2 ** 20) {
    throw new P2pfsError('unsupported', `device number ${major}:${minor} is beyond Linux's 4095:1048575`)
  }
  const out = Buffer.alloc(60)
  if (major < 256 && minor < 256) out.writeUInt32LE((major << 8) | minor, 0)
  else out.writeUInt32LE(((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0, 4)
  return out
}
