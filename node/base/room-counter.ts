/** The room of files on the disk is counted in blocks of this size (bytes), as filesystems allocate them. */
export const blockBytes = 4096

/** Places in the shared memory: blocks that are taken, and how many may be. */
const [taken, most] = [0, 1]

/** Blocks for a file of so many bytes. */
export function blocksOf(lengthBytes: number): number {
  return Math.ceil(lengthBytes / blockBytes)
}

/**
 * Counts what the chunks of this host take on the disk, for all threads that write chunk files: they share the memory,
 * none waits for another, and together they never take more than they may.
 */
export class RoomCounter {
  /** For the constructor in another thread. */
  readonly shared: SharedArrayBuffer
  readonly #cells: BigInt64Array

  constructor(shared = new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT)) {
    this.shared = shared
    this.#cells = new BigInt64Array(shared)
  }

  get usedBytes(): number {
    return Number(Atomics.load(this.#cells, taken)) * blockBytes
  }

  /** The room that may be taken (bytes). */
  get limitBytes(): number {
    return Number(Atomics.load(this.#cells, most)) * blockBytes
  }

  set limitBytes(bytes: number) {
    Atomics.store(this.#cells, most, BigInt(Math.max(0, Math.floor(bytes / blockBytes))))
  }

  /** Takes room for a file. @returns whether there was enough */
  take(blocks: number): boolean {
    const before = Atomics.add(this.#cells, taken, BigInt(blocks))
    if (before + BigInt(blocks) <= Atomics.load(this.#cells, most)) return true
    this.give(blocks)
    return false
  }

  /** Takes room that a file has already, whatever the limit. */
  count(blocks: number): void {
    Atomics.add(this.#cells, taken, BigInt(blocks))
  }

  give(blocks: number): void {
    Atomics.sub(this.#cells, taken, BigInt(blocks))
  }
}
