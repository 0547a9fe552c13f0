import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Announcer } from '../../../node/store/inventory.ts'
import { digestOf, parseDigest, type Digest } from '../../../protocol/digest.ts'

/** A region of one host. */
export const nobody: Announcer = {
  announce: () => undefined,
  announceChunks: () => undefined,
  withdrawChunks: () => undefined,
  forget: () => undefined,
}

/** Every block of it is different, so that one in the place of another shows. */
const noise = new Uint32Array(64 * 1024).map((_, i) => Math.imul(i + 1, 0x9e3779b1) ^ (i >>> 3))

/** The chunk of a number: 4 to 256 KiB. */
export function chunkBytes(number: number): Buffer {
  const bytes = Buffer.from(noise.buffer.slice(0, 4096 * (1 + (number % 64))))
  for (let at = 0; at < bytes.length; at += 512) bytes.writeUInt32LE(number, at)
  return bytes
}

/** The chunk files of a directory, and whether each is what its name says. */
export function chunkFilesBelow(directory: string): Map<Digest, boolean> {
  const files = new Map<Digest, boolean>()
  for (const prefix of readdirSync(directory))
    if (/^[0-9a-f]{2}$/.test(prefix))
      for (const name of readdirSync(join(directory, prefix))) {
        const digest = parseDigest(`sha256:${name}`)
        files.set(digest, digestOf(readFileSync(join(directory, prefix, name))) === digest)
      }
  return files
}
