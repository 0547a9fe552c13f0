import type { Digest } from '../../protocol/digest.ts'
import { BoundedMap } from '../base/bounded-map.ts'

/**
 * A use counts half as much when so many times the capacity has come since. From 2 to 8 the hit rate is within half a
 * point of the best; `docs/decisions/eviction.md` has the figures.
 */
const halfLifeTurns = 4
/** Scores of chunks that were evicted: those of 4 GiB, 3 MiB of memory. Beyond it a chunk that comes again begins anew. */
const maxRemembered = 16_384
/** The score now, of a host that has just started: one that is not known (0) is older than all. */
const firstNow = 64
/** A smaller store would forget within one mount (bytes). */
const leastCapacityBytes = 2 ** 20

/**
 * How worth keeping chunks are, by recency and frequency of use: the policy LRFU (Lee et al., IEEE Trans. Computers
 * 2001). The score is the binary logarithm of a sum over all uses, of which each counts half as much after a half-life;
 * so scores of chunks that nobody uses need no ageing. Time is what has come to the store: a quiet host forgets
 * nothing. A chunk that was evicted and comes again has what it had.
 */
export class UseScores {
  readonly #capacityBytes: () => number
  readonly #remembered = new BoundedMap<Digest, number>({ maxEntries: maxRemembered })
  #now = firstNow

  /** @param options `capacityBytes`: what the store may take now */
  constructor({ capacityBytes }: { capacityBytes: () => number }) {
    this.#capacityBytes = capacityBytes
  }

  /** The score of a use now, of a chunk that had none before. */
  get now(): number {
    return this.#now
  }

  /** A chunk has come. @returns its score */
  arrived(digest: Digest, lengthBytes: number): number {
    this.#now += lengthBytes / (halfLifeTurns * Math.max(leastCapacityBytes, this.#capacityBytes()))
    const before = this.#remembered.get(digest)
    if (before === undefined) return this.#now
    this.#remembered.delete(digest)
    return this.used(before)
  }

  /** @param score of a chunk that is used once more. @returns its score from now on */
  used(score: number): number {
    return this.#now + Math.log2(1 + 2 ** (score - this.#now))
  }

  evicted(digest: Digest, score: number): void {
    this.#remembered.set(digest, score)
  }
}
