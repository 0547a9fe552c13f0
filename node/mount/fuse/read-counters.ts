import { chunkFlags } from './block-image.ts'

export interface Amount {
  bytes: number
  chunks: number
}

/** What reads were served, by where the chunk came from while this process ran. */
export type Served = Record<'local' | 'peer' | 'registry', Amount>

/** Numbers per thread: bytes and chunks, for local, peer and registry. */
const numbers = 6

/** Counts of all threads in shared memory: each thread has a row of its own, so none waits for another. */
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

  /** Counts `bytes` of one chunk that went to a reader; the first time also in the image's `order`. @returns the chunk's flags as they were */
  count({ state, order }: { state: Uint8Array; order: Int32Array }, chunk: number, bytes: number): number {
    let flags = state[chunk]!
    const at = this.#row + (flags & 3) * 2
    this.#all[at]! += bytes
    if ((flags & chunkFlags.served) === 0) {
      flags = Atomics.or(state, chunk, chunkFlags.served)
      if ((flags & chunkFlags.served) === 0) {
        this.#all[at + 1]! += 1
        const place = Atomics.add(order, 0, 1) + 1
        if (place < order.length) Atomics.store(order, place, chunk + 1)
      }
    }
    return flags
  }

  totals(): Served {
    const sum = (column: number): number => {
      let total = 0
      for (let at = column; at < this.#all.length; at += numbers) total += this.#all[at]!
      return total
    }
    const amount = (column: number): Amount => ({ bytes: sum(column), chunks: sum(column + 1) })
    return { local: amount(0), peer: amount(2), registry: amount(4) }
  }
}
