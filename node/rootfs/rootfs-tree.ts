import type { ByteString } from '../../protocol/layer-index.ts'

/** One inode of the merged tree; the same object under several names is a hard link. */
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
  /** Bytes of the file in no extent are a hole. `layer` counts from the lowest. */
  extents: readonly { layer: number; fileOffset: number; lengthBytes: number; segmentOffset: number }[]
  /** Directories only, by single path component. */
  children?: Map<ByteString, RootfsInode>
}

/** What all layers together amount to. */
export interface RootfsTree {
  root: RootfsInode
}
