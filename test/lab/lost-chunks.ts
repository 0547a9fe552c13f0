import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { createRandom } from '../support/random.ts'

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Reads reach the daemon again. */
export function dropPageCache(): void {
  writeFileSync('/proc/sys/vm/drop_caches', '1')
}

/**
 * Takes away a share of the chunks that a rootfs has, not those of windows; the daemon forgets them when a read misses them.
 * @param whole the rootfs @returns how many
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
    // Emptied as well: threads that serve reads keep files open.
    truncateSync(join(chunks, name))
    rmSync(join(chunks, name))
  }
  dropPageCache()
  return lost.length
}

/** Takes away all chunk files, those of windows too, behind the daemon's back: it finds out when a read misses them. */
export function removeChunks(stateDirectory: string): void {
  const chunks = join(stateDirectory, 'chunks')
  for (const name of readdirSync(chunks))
    if (name !== 'incoming') for (const file of readdirSync(join(chunks, name))) rmSync(join(chunks, name, file))
  dropPageCache()
}

/** One reader from the beginning to the end; never the synchronous way, as the lab's registry may be in this process. */
export async function readSlowly(
  path: string,
  sizeBytes: number,
  { stepBytes = 256 * 1024, onStep }: { stepBytes?: number; onStep?: (doneBytes: number) => void } = {},
): Promise<Buffer> {
  await using file = await open(path)
  const bytes = Buffer.alloc(sizeBytes)
  for (let at = 0; at < bytes.length;) {
    const { bytesRead } = await file.read(bytes, at, Math.min(stepBytes, bytes.length - at), at)
    if (bytesRead === 0) throw new Error(`${path} ends at ${at}`)
    at += bytesRead
    onStep?.(at)
  }
  return bytes
}
