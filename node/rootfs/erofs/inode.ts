import { P2pfsError } from '../../../protocol/errors.ts'
import type { RootfsInode } from '../tree/rootfs-inode.ts'
import { typeBits } from '../tree/inode-types.ts'
import { inodeBytes, layouts, xattrHeaderBytes } from './format.ts'

/** The parts of an inode that depend on the layout. */
export interface InodeBody {
  /** A number of its own, from 1. */
  number: number
  layout: keyof typeof layouts
  sizeBytes: number
  links: number
  xattrBytes: number
  /** First block of the data, device number, or format of the chunk map. */
  place: number
}

/** The extended form of an inode, 64 bytes. */
export function encodeInode(node: RootfsInode, body: InodeBody): Buffer {
  const out = Buffer.alloc(inodeBytes)
  out.writeUInt16LE(1 | (layouts[body.layout] << 1), 0)
  out.writeUInt16LE(body.xattrBytes === 0 ? 0 : (body.xattrBytes - xattrHeaderBytes) / 4 + 1, 2)
  out.writeUInt16LE(typeBits[node.type] | node.mode, 4)
  out.writeBigUInt64LE(BigInt(body.sizeBytes), 8)
  out.writeUInt32LE(body.place, 16)
  out.writeUInt32LE(body.number, 20)
  out.writeUInt32LE(node.uid, 24)
  out.writeUInt32LE(node.gid, 28)
  out.writeBigInt64LE(BigInt(node.mtime.seconds), 32)
  out.writeUInt32LE(node.mtime.nanoseconds, 40)
  out.writeUInt32LE(body.links, 44)
  return out
}

/**
 * Linux's 32-bit form of a device number: 12 bits of major, 20 of minor, the low 8 of the minor at the bottom.
 * @throws unsupported for a number that Linux cannot have
 */
export function encodeDevice({ major, minor }: RootfsInode['device']): number {
  if (major >= 2 ** 12 || minor >= 2 ** 20) {
    throw new P2pfsError('unsupported', `device number ${major}:${minor} is beyond Linux's 4095:1048575`)
  }
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0
}
