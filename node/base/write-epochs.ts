/** Places in the shared memory: the epoch now, and the writes under way in even and in odd epochs. */
const [now, writers] = [0, 1]

/**
 * Epochs of the writing of chunk files. A chunk file has the epoch in which it was written as its modification time (s), so
 * that it can be told after a power loss whether it was written before the last sync. All threads that write chunk files
 * share the memory, and none of them waits for another.
 *
 * An epoch that is closed gets no more writes; when those under way have ended, a sync makes all of it durable.
 */
export class WriteEpochs {
  /** For the constructor in another thread. */
  readonly shared: SharedArrayBuffer
  readonly #cells: Int32Array

  constructor(shared: SharedArrayBuffer) {
    this.shared = shared
    this.#cells = new Int32Array(shared)
  }

  static startingAt(epoch: number): WriteEpochs {
    const epochs = new WriteEpochs(new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT))
    epochs.#cells[now] = epoch
    return epochs
  }

  get current(): number {
    return Atomics.load(this.#cells, now)
  }

  /** Begins a write. @returns its epoch, to be given to {@link end} when the file has its name, or never will */
  begin(): number {
    for (;;) {
      const epoch = this.current
      Atomics.add(this.#cells, writers + (epoch & 1), 1)
      // Otherwise whoever closed it may have found it quiet.
      if (this.current === epoch) return epoch
      this.end(epoch)
    }
  }

  end(epoch: number): void {
    Atomics.sub(this.#cells, writers + (epoch & 1), 1)
  }

  /** Closes the epoch; the one before must be quiet. One thread does this. @returns the epoch that is closed now */
  close(): number {
    return Atomics.add(this.#cells, now, 1)
  }

  /** Whether no write of this epoch, the last that was closed, is under way. */
  isQuiet(epoch: number): boolean {
    return Atomics.load(this.#cells, writers + (epoch & 1)) === 0
  }
}
