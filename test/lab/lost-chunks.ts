import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { createRandom } from '../support/random.ts'

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Drops the page cache, so that reads reach the daemon again. */
export function dropPageCache(): void {
  writeFileSync('/proc/sys/vm/drop_caches', '1')
}

/**
 * Removes a share of the chunks of a rootfs, but no windows. The daemon notices the loss when a read misses them.
 * @param whole the bytes of the rootfs @returns the number of removed chunks
 */
export function loseChunks(stateDirectory: string, whole: Buffer, share: number, seed = 3): number {
  const blocks = new Set(
    Array.from({ length: whole.length / 4096 }, (_, i) => hash(whole.subarray(i * 4096, (i + 1) * 4096))),
  )
  const random = createRandom(seed)
  const chunks = join(stateDirectory, 'chunks')
  const names = readdirSync(chunks, { recursive: true, encoding: 'utf8' })
    .filter((name) => /^[0-9a-f]{2}\/[0-9a-f]{64}$/.test(name))
    .sort()
  const lost = names.filter(
    (name) => random.below(1000) < share * 1000 && blocks.has(hash(readFileSync(join(chunks, name)).subarray(0, 4096))),
  )
  for (const name of lost) {
    // Threads that serve reads keep files open, so the file is emptied as well.
    truncateSync(join(chunks, name))
    rmSync(join(chunks, name))
  }
  dropPageCache()
  return lost.length
}

/** Removes all chunk files, those of windows too, behind the daemon's back: it finds out when a read misses them. */
export function removeChunks(stateDirectory: string): void {
  const chunks = join(stateDirectory, 'chunks')
  for (const name of readdirSync(chunks))
    if (/^[0-9a-f]{2}$/.test(name)) for (const file of readdirSync(join(chunks, name))) rmSync(join(chunks, name, file))
  dropPageCache()
}

/** Reads a file from beginning to end. It is asynchronous, because the lab's registry may be in this process. */
export async function readSlowly(
  path: string,
  sizeBytes: number,
  { stepBytes = 256 * 1024, onStep }: { stepBytes?: number; onStep?: (doneBytes: number) => void } = {},
): Promise<Buffer> {
  await using file = await open(path)
  const bytes = Buffer.alloc(sizeBytes)
  for (let offset = 0; offset < bytes.length;) {
    const { bytesRead } = await file.read(bytes, offset, Math.min(stepBytes, bytes.length - offset), offset)
    if (bytesRead === 0) throw new Error(`${path} ends at ${offset}`)
    offset += bytesRead
    onStep?.(offset)
  }
  return bytes
}
