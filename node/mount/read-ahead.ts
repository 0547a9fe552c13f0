/** The image that is read, as read-ahead needs it. */
export interface ReadAheadTarget {
  /** Offset of each chunk in the image, and the image's size last (bytes). */
  readonly offsets: Float64Array
  /** Fetches the chunk unless it is here or under way. The read that needs the chunk reports a failure. */
  prefetch: (chunkIndex: number) => void
  /** Makes this chunk a trigger: {@link ReadAhead.touch} is called when a reader gets to it. */
  setTrigger: (chunkIndex: number) => void
}

/**
 * Limits of what is fetched ahead of a reader (bytes). The upper one is what a gigabit link carries in a quarter of a
 * second.
 */
const minWindowBytes = 64 * 1024
const maxWindowBytes = 32 * 1024 * 1024
/**
 * Readers that are followed in one image; a further one replaces the reader that was not seen for longest. A booting
 * program reads here and there, and its reads are easily taken for readers that read on: a cold start that follows five
 * or eight readers fetches a tenth more than one that follows two or three.
 */
const maxReaders = 3

interface Reader {
  /** The chunk that the reader touches next if it reads sequentially. */
  position: number
  /** The first chunk after those that were fetched for it. */
  end: number
  windowBytes: number
}

/**
 * Follows the readers of one image and keeps chunks ahead of those that read sequentially. The window of a reader
 * doubles with each of its steps that leaves nothing out, and is halved by a step that jumps within the window: what
 * lies between the reads of a boot is not worth fetching. As in the kernel's own read-ahead, a trigger chunk within the
 * window tells when the next window is due.
 */
export class ReadAhead {
  readonly #target: ReadAheadTarget
  readonly #readers: Reader[] = []

  constructor(target: ReadAheadTarget) {
    this.#target = target
  }

  /** A reader missed this chunk, or got to it and it was a trigger. */
  touch(chunkIndex: number): void {
    const isSamePlace = this.#readers.some(({ position }) => position === chunkIndex + 1)
    if (isSamePlace) return
    const index = this.#readers.findIndex(({ position, end }) => chunkIndex >= position && chunkIndex <= end)
    const reader = this.#readers[index]
    if (reader === undefined) {
      this.#readers.push({ position: chunkIndex + 1, end: chunkIndex + 1, windowBytes: 0 })
      if (this.#readers.length > maxReaders) this.#readers.shift()
      return
    }
    this.#readers.splice(index, 1)
    this.#readers.push(reader)
    const { offsets } = this.#target
    const skippedBytes = offsets[chunkIndex]! - offsets[reader.position]!
    reader.windowBytes =
      skippedBytes * 2 > reader.windowBytes
        ? reader.windowBytes / 2
        : Math.min(Math.max(minWindowBytes, reader.windowBytes * 2), maxWindowBytes)
    const next = chunkIndex + 1
    const end = this.#chunkAfter(next, reader.windowBytes)
    for (let i = Math.max(next, reader.end); i < end; i++) this.#target.prefetch(i)
    reader.position = next
    reader.end = end
    // Early in the window, so that the next window is under way before the reader is through with this one.
    const trigger = Math.min(this.#chunkAfter(next, reader.windowBytes / 4), end - 1)
    if (trigger >= next) this.#target.setTrigger(trigger)
  }

  /** The first chunk that does not lie whole within this many bytes from the start of chunk `from`. */
  #chunkAfter(from: number, bytes: number): number {
    const { offsets } = this.#target
    let index = from
    while (index < offsets.length - 1 && offsets[index + 1]! - offsets[from]! <= bytes) index++
    return index
  }
}
