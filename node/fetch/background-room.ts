import type { Clock } from '../base/clock.ts'

/** Chunks under way that nobody waits for, as for a seed: 128 of the 100 KiB that chunks have on average fill a link of 10 Gbit/s at 10 ms. */
const alone = 128
/**
 * The same while somebody waits for a chunk, and for so long after that (ms): others would take the CPU, the disk and the link that
 * the read needs. So a seed gets the less, the longer reads take. It goes on all the same, since a read may wait for minutes.
 * 1 MiB is 8 ms of a link of 1 Gbit/s: the next read waits for no more.
 */
const besideReads = { whileAwaited: 1, after: 4, quietMs: 250 } as const

/** How many chunks of seeds may be under way beside the reads that somebody waits for. */
export class BackgroundRoom {
  readonly #clock: Clock
  readonly #onMore: () => void
  #awaited = 0
  #lastAwaitedMs = -Infinity

  /** @param onMore called when more may be under way at once; what ends looks by itself */
  constructor({ clock, onMore }: { clock: Clock; onMore: () => void }) {
    this.#clock = clock
    this.#onMore = onMore
  }

  get most(): number {
    if (this.#awaited > 0) return besideReads.whileAwaited
    return this.#clock.now() - this.#lastAwaitedMs < besideReads.quietMs ? besideReads.after : alone
  }

  /** Runs what somebody waits for. @throws what it throws */
  async beside<T>(read: () => Promise<T>): Promise<T> {
    this.#awaited++
    try {
      return await read()
    } finally {
      this.#awaited--
      this.#lastAwaitedMs = this.#clock.now()
      if (this.#awaited === 0) this.#onMore()
    }
  }
}
