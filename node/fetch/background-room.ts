import type { AwaitedReads } from '../base/awaited-reads.ts'

/** Chunks under way that nobody waits for, as for a seed: 128 of the 100 KiB that chunks have on average fill a link of 10 Gbit/s at 10 ms. */
const alone = 128
/**
 * The same while somebody waits for a chunk, and for a while after that: others would take the CPU, the disk and the link that
 * the read needs. So a seed gets the less, the longer reads take. It goes on all the same, since a read may wait for minutes.
 * 1 MiB is 8 ms of a link of 1 Gbit/s: the next read waits for no more.
 */
const besideReads = { whileAwaited: 1, after: 4 } as const

/** How many chunks of seeds may be under way beside the reads that somebody waits for. */
export class BackgroundRoom {
  readonly #reads: AwaitedReads

  /** @param onMore called when more may be under way at once; what ends looks by itself */
  constructor({ reads, onMore }: { reads: AwaitedReads; onMore: () => void }) {
    this.#reads = reads
    reads.onNone(onMore)
  }

  get most(): number {
    const { current } = this.#reads
    if (current === 'now') return besideReads.whileAwaited
    return current === 'lately' ? besideReads.after : alone
  }
}
