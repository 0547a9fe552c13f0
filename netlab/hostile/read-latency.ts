import { open } from 'node:fs/promises'
import { createRandom } from '../../test/support/random.ts'

const pageBytes = 4096

/** How long reads took (ms). */
export interface Latencies {
  p50: number
  p99: number
  longest: number
}

/**
 * Reads pages of a file at random, one after the other.
 * @returns how long each took (ms)
 * @throws what a read fails with
 */
export async function timeReads(path: string, { pages, seed }: { pages: number; seed: number }): Promise<number[]> {
  const random = createRandom(seed)
  await using file = await open(path)
  const { size } = await file.stat()
  const buffer = Buffer.alloc(pageBytes)
  const took: number[] = []
  for (let i = 0; i < pages; i++) {
    const position = random.below(Math.floor(size / pageBytes)) * pageBytes
    const startedAt = performance.now()
    await file.read(buffer, 0, pageBytes, position)
    took.push(performance.now() - startedAt)
  }
  return took
}

export function latenciesOf(took: readonly number[]): Latencies {
  const sorted = took.toSorted((a, b) => a - b)
  const quantile = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
  return { p50: quantile(0.5), p99: quantile(0.99), longest: sorted.at(-1) ?? 0 }
}
