import type { ByteString } from '../../protocol/layer-index.ts'

/** One inode of the merged tree. Hard links are several names of the same object. */
export interface RootfsInode {
  type: 'file' | 'directory' | 'symlink' | 'character' | 'block' | 'fifo'
  mode: number
  uid: number
  gid: number
  mtime: { seconds: number; nanoseconds: number }
  xattrs: readonly { name: ByteString; value: Uint8Array }[]
  linkTarget: ByteString
  device: { major: number; minor: number }
  sizeBytes: number
  /** Bytes of the file in no extent are a hole. `layer` counts from 0, the lowest. */
  extents: readonly { layer: number; fileOffset: number; lengthBytes: number; segmentOffset: number }[]
  /** Of directories only, by name. */
  children?: Map<ByteString, RootfsInode>
}

/** The merged layers of an image. */
export interface RootfsTree {
  root: RootfsInode
}
