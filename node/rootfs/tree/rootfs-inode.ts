import type { ByteString } from '../../../protocol/layer-entry.ts'

/** Order is of no importance outside of a tree in memory. */
export const inodeTypes = ['file', 'directory', 'symlink', 'character', 'block', 'fifo'] as const
export type InodeType = (typeof inodeTypes)[number]

/** A part of a file's content. */
export interface FileExtent {
  fileOffset: number
  lengthBytes: number
  /** Offset in the layer's data segment, bytes. */
  segmentOffset: number
}

export interface Xattr {
  name: ByteString
  value: Uint8Array
}

/** One inode of the merged tree. */
export interface RootfsInode {
  type: InodeType
  mode: number
  uid: number
  gid: number
  mtime: { seconds: number; nanoseconds: number }
  xattrs: readonly Xattr[]
  linkTarget: ByteString
  device: { major: number; minor: number }
  sizeBytes: number
  /** The layer that has the file's content, counted from 0, the lowest. */
  layer: number
  /** Bytes of the file in no extent are a hole. */
  extents: readonly FileExtent[]
}
