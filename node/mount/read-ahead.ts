/** The image that is read, as read-ahead needs it. */
export interface ReadAheadTarget {
  /** Offset of each chunk in the image, and the image's size last, bytes. */
  readonly offsets: Float64Array
  /** Fetches the chunk unless it is here or under way; a failure is for the read that needs it to report. */
  prefetch: (chunkIndex: number) => void
  /** Asks to be told, through {@link ReadAhead.touch}, when a reader gets to this chunk. */
  mark: (chunkIndex: number) => void
}

/** What is fetched ahead of a reader that has read on once; and at most: a gigabit link for a quarter of a second. Bytes. */
const minWindowBytes = 64 * 1024
const maxWindowBytes = 32 * 1024 * 1024
/**
 * Readers followed per image; beyond it the one not seen for longest is forgotten. A boot reads here and there: of five or eight a cold start
 * fetches a tenth more than of two or three, for readers that were none.
 */
const maxStreams = 3

interface Stream {
  /** The chunk that a sequential reader touches next, and the first beyond what was fetched for it. */
  position: number
  end: number
  windowBytes: number
}

/**
 * Follows the readers of one image and keeps chunks ahead of those that read on. The window doubles with each step of a reader
 * that leaves nothing out, and is halved by one that jumps within it: what a boot reads here and there is not worth the
 * chunks between. The idea is the kernel's own: a mark in the window tells when to go on.
 */
export class ReadAhead {
  readonly #target: ReadAheadTarget
  readonly #streams: Stream[] = []

  constructor(target: ReadAheadTarget) {
    this.#target = target
  }

  /** A reader missed this chunk, or came to a mark on it. */
  touch(chunkIndex: number): void {
    // The next piece of the same chunk.
    if (this.#streams.some(({ position }) => position === chunkIndex + 1)) return
    const at = this.#streams.findIndex((stream) => chunkIndex >= stream.position && chunkIndex <= stream.end)
    const stream: Stream | undefined = this.#streams[at]
    if (stream === undefined) {
      this.#streams.push({ position: chunkIndex + 1, end: chunkIndex + 1, windowBytes: 0 })
      if (this.#streams.length > maxStreams) this.#streams.shift()
      return
    }
    this.#streams.splice(at, 1)
    this.#streams.push(stream)
    const { offsets } = this.#target
    const skippedBytes = offsets[chunkIndex]! - offsets[stream.position]!
    stream.windowBytes =
      skippedBytes * 2 > stream.windowBytes
        ? stream.windowBytes / 2
        : Math.min(Math.max(minWindowBytes, stream.windowBytes * 2), maxWindowBytes)
    const next = chunkIndex + 1
    const end = this.#chunkAfter(next, stream.windowBytes)
    for (let i = Math.max(next, stream.end); i < end; i++) this.#target.prefetch(i)
    stream.position = next
    stream.end = end
    // Early in the window, so that the next one is under way before this one is read.
    const mark = Math.min(this.#chunkAfter(next, stream.windowBytes / 4), end - 1)
    if (mark >= next) this.#target.mark(mark)
  }

  /** The first chunk that does not lie whole within so many bytes from the start of chunk `from`. */
  #chunkAfter(from: number, bytes: number): number {
    const { offsets } = this.#target
    let index = from
    while (index < offsets.length - 1 && offsets[index + 1]! - offsets[from]! <= bytes) index++
    return index
  }
}
