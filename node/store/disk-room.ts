import { statfs } from 'node:fs/promises'

/** Bytes of a filesystem. */
export interface Room {
  /** For users other than root. */
  freeBytes: number
  sizeBytes: number
}

/** How much room the filesystem of a directory has. */
export async function roomOf(directory: string): Promise<Room> {
  const { bavail, blocks, bsize } = await statfs(directory)
  return { freeBytes: bavail * bsize, sizeBytes: blocks * bsize }
}
