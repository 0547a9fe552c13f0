import { join } from 'node:path'
import { digestHex, type Digest } from './digest.ts'

/** The file of a chunk below the chunk directory: `ab/ab12...`. It has the chunk's bytes and nothing else. */
export function chunkFile(directory: string, digest: Digest): string {
  const hex = digestHex(digest)
  return join(directory, hex.slice(0, 2), hex)
}
