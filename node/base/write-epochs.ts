/**
 * Places in the shared memory: the epoch now, the writes under way in even and in odd epochs, and whether none may
 * begin.
 */
const [now, writers, halted] = [0, 1, 3]
/** In the cell of a thread that is not writing. */
const idle = -1

/**
 * Epochs of the writing of chunk files. A chunk file has the epoch in which it was written as its modification time (s), so
 * that it can be told after a power loss whether it was written before the last sync. All threads that write chunk files
 * share the memory, and none of them waits for another.
 *
 * A thread that may be killed at any instruction has a cell of its own, which has the epoch of the one write that it is at:
 * it can be taken away when the thread is dead.
 *
 * An epoch that is closed gets no more writes; when those under way have ended, a sync makes all of it durable.
 */
export class WriteEpochs {
  /** For the constructor in another thread. */
  readonly shared: SharedArrayBuffer
  readonly #cells: Int32Array
  /** The cell of this thread, if it may be killed. */
  readonly #own: Int32Array | undefined
  /** The cells that have been given out: known to the thread that closes epochs. */
  readonly #given = new Map<SharedArrayBuffer, Int32Array>()

  constructor(shared: SharedArrayBuffer, cell?: SharedArrayBuffer) {
    this.shared = shared
    this.#cells = new Int32Array(shared)
    this.#own = cell === undefined ? undefined : new Int32Array(cell)
  }

  static startingAt(epoch: number): WriteEpochs {
    const epochs = new WriteEpochs(new SharedArrayBuffer(4 * Int32Array.BYTES_PER_ELEMENT))
    epochs.#cells[now] = epoch
    return epochs
  }

  get current(): number {
    return Atomics.load(this.#cells, now)
  }

  /** Whether threads shall write nothing: the room that the disk has left is for others. */
  get isHalted(): boolean {
    return Atomics.load(this.#cells, halted) === 1
  }

  /** Has all threads write nothing from now on, but for one write of each that is under way. */
  halt(): void {
    Atomics.store(this.#cells, halted, 1)
  }

  resume(): void {
    Atomics.store(this.#cells, halted, 0)
  }

  /** A cell for a thread that may be killed. This is called where epochs are closed. */
  giveCell(): SharedArrayBuffer {
    const cell = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
    const cells = new Int32Array(cell)
    cells[0] = idle
    this.#given.set(cell, cells)
    return cell
  }

  /** The thread that had the cell is dead. */
  takeCell(cell: SharedArrayBuffer): void {
    this.#given.delete(cell)
  }

  /** Begins a write. @returns its epoch, to be given to {@link end} when the file has its name, or never will */
  begin(): number {
    for (;;) {
      const epoch = this.current
      if (this.#own === undefined) Atomics.add(this.#cells, writers + (epoch & 1), 1)
      else Atomics.store(this.#own, 0, epoch)
      // Otherwise whoever closed it may have found it quiet.
      if (this.current === epoch) return epoch
      this.end(epoch)
    }
  }

  end(epoch: number): void {
    if (this.#own === undefined) Atomics.sub(this.#cells, writers + (epoch & 1), 1)
    else Atomics.store(this.#own, 0, idle)
  }

  /** Closes the epoch; the one before must be quiet. One thread does this. @returns the epoch that is closed now */
  close(): number {
    return Atomics.add(this.#cells, now, 1)
  }

  /** Whether no write of this epoch, the last that was closed, is under way. */
  isQuiet(epoch: number): boolean {
    for (const cell of this.#given.values()) if (Atomics.load(cell, 0) === epoch) return false
    return Atomics.load(this.#cells, writers + (epoch & 1)) === 0
  }
}
