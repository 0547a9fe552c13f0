import { digestToBytes, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsTree } from './tree/rootfs-tree.ts'

/** A filesystem laid out: its metadata segment at the front, the layers' data segments behind it, back to back. */
export interface FilesystemPlan {
  /** Length of the metadata segment. */
  metadataBytes: number
  sizeBytes: number
  /** The metadata segment, in order, in pieces of whole blocks, which are the caller's. */
  pieces: () => Generator<Uint8Array>
}

/** Plans an inode. Errors that the task throws get the inode's path. */
export function namingPath<T>(tree: RootfsTree, inode: number, task: () => T): T {
  try {
    return task()
  } catch (cause) {
    if (!(cause instanceof P2pfsError)) throw cause
    const path = tree.pathOf(inode)
    throw new P2pfsError(cause.code, `/${path}: ${cause.message}`, { ...cause.details, cause, path })
  }
}

/** A UUID of version 8 (RFC 9562), made of the digest's first bytes. */
export function uuidFrom(seed: Digest): Uint8Array {
  const uuid = Uint8Array.from(digestToBytes(seed).subarray(0, 16))
  uuid[6] = (uuid[6]! & 0x0f) | 0x80
  uuid[8] = (uuid[8]! & 0x3f) | 0x80
  return uuid
}
