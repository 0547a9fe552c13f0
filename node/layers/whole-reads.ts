import type { Digest } from '../../protocol/digest.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import { wholeReadReasons, type WholeRead, type WholeReadReason } from '../model/whole-read.ts'

/** How long a read that has ended is told of (ms): as long as a registry is believed to have no ranges. */
export const recentMs = 300_000
/** Ended reads that are told of: more layers than the mounts of a host have. */
const maxRecent = 1024

/**
 * Knows the layers of lazily read images that are read whole, and why. A layer is named by the table of its data
 * segment.
 */
export class WholeReads {
  readonly #running = new Map<Digest, WholeRead>()
  readonly #recent: ExpiringMap<Digest, WholeRead>
  /** How many have begun, by reason. */
  readonly counts = Object.fromEntries(wholeReadReasons.map((reason) => [reason, 0])) as Record<WholeReadReason, number>

  constructor({ now }: { now?: () => number } = {}) {
    this.#recent = new ExpiringMap({ maxEntries: maxRecent, ...(now && { now }) })
  }

  /** Runs a read of a whole layer. */
  async during<T>(table: Digest, reason: WholeReadReason, read: () => Promise<T>): Promise<T> {
    const whole = { reason, startedAt: new Date().toISOString() }
    this.#running.set(table, whole)
    this.counts[reason]++
    try {
      return await read()
    } finally {
      this.#running.delete(table)
      this.#recent.set(table, whole, recentMs)
    }
  }

  get running(): number {
    return this.#running.size
  }

  /** The layer has been read at random since: an earlier read of all of it tells nothing any more. */
  overcome(table: Digest): void {
    this.#recent.delete(table)
  }

  /** The read of this layer that runs, or has ended a short while ago. */
  of(table: Digest): WholeRead | undefined {
    return this.#running.get(table) ?? this.#recent.get(table)
  }
}
