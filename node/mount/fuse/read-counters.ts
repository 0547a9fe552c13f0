import type { Amount } from '../../model/progress.ts'
import { chunkFlags } from './block-image.ts'

/** The chunks that reads have used, by where each came from while this process ran. */
export type Served = Record<'local' | 'peer' | 'registry' | 'neighbour', Amount>

/** Counters of a thread: bytes and chunks, for local, peer, registry and neighbour; and reads that failed. */
const numbers = 9
/** The place of the last of these. */
const failures = 8

const usedAndServed = chunkFlags.used | chunkFlags.served

/** The pair of counters for the source that the flags name. */
function placeOf(flags: number): number {
  return (flags & chunkFlags.neighbour) !== 0 ? 3 : (flags & chunkFlags.registry) !== 0 ? 2 : flags & chunkFlags.peer
}

/** Counters of all threads, in shared memory. Each thread has a row of its own, so that none waits for another. */
export class ReadCounters {
  readonly #all: Float64Array
  readonly #row: number

  /** @param buffer from {@link ReadCounters.allocate}; row 0 is the main thread's */
  constructor(buffer: SharedArrayBuffer, row: number) {
    this.#all = new Float64Array(buffer)
    this.#row = row * numbers
  }

  static allocate(threads: number): SharedArrayBuffer {
    return new SharedArrayBuffer((threads + 1) * numbers * 8)
  }

  /**
   * Counts bytes of a chunk that went to a reader, and the chunk if it is the first time.
   * @returns the chunk's flags as they were
   */
  count({ state, readOrder }: { state: Uint8Array; readOrder: Int32Array }, chunk: number, bytes: number): number {
    let flags = state[chunk]!
    const column = this.#row + placeOf(flags) * 2
    this.#all[column]! += bytes
    if ((flags & usedAndServed) !== usedAndServed) {
      flags = Atomics.or(state, chunk, usedAndServed)
      if ((flags & chunkFlags.served) === 0) {
        this.#all[column + 1]! += 1
        const place = Atomics.add(readOrder, 0, 1) + 1
        if (place < readOrder.length) Atomics.store(readOrder, place, chunk + 1)
      }
    }
    return flags
  }

  /** Counts a read that was answered with an I/O error. */
  countError(): void {
    this.#all[this.#row + failures]! += 1
  }

  totals(): { served: Served; errors: number } {
    const sum = (column: number): number => {
      let total = 0
      for (let index = column; index < this.#all.length; index += numbers) total += this.#all[index]!
      return total
    }
    const amount = (column: number): Amount => ({ bytes: sum(column), chunks: sum(column + 1) })
    const served = { local: amount(0), peer: amount(2), registry: amount(4), neighbour: amount(6) }
    return { served, errors: sum(failures) }
  }
}
