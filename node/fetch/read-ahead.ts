/** The image that is read, as read-ahead needs it. */
export interface ReadAheadTarget {
  readonly chunkCount: number
  /** Fetches the chunk unless it is here or under way; a failure is for the read that needs it to report. */
  prefetch: (chunkIndex: number) => void
  /** Asks to be told, through {@link ReadAhead.touch}, when a reader gets to this chunk. */
  mark: (chunkIndex: number) => void
}

/** Chunks ahead of a sequential reader at most: 32 MiB of full-size chunks, a gigabit link for a quarter of a second. */
const maxWindow = 32
/** Readers followed per image; beyond it the one not seen for longest is forgotten. */
const maxStreams = 8

interface Stream {
  /** The chunk that a sequential reader touches next, and how far beyond what was seen it may be: the window. */
  position: number
  end: number
  window: number
}

/**
 * Follows the readers of one image and keeps chunks ahead of those that read on: the window doubles with each
 * step, from one chunk to 32. The idea is the kernel's own: a mark in the middle of the window tells when to go on.
 */
export class ReadAhead {
  readonly #target: ReadAheadTarget
  readonly #streams: Stream[] = []

  constructor(target: ReadAheadTarget) {
    this.#target = target
  }

  /** A reader missed this chunk, or came to a mark on it. */
  touch(chunkIndex: number): void {
    const at = this.#streams.findIndex((stream) => chunkIndex >= stream.position && chunkIndex <= stream.end)
    const stream: Stream | undefined = this.#streams[at]
    if (stream === undefined) {
      this.#streams.push({ position: chunkIndex + 1, end: chunkIndex + 1, window: 0 })
      if (this.#streams.length > maxStreams) this.#streams.shift()
      return
    }
    this.#streams.splice(at, 1)
    this.#streams.push(stream)
    stream.window = Math.min(Math.max(1, stream.window * 2), maxWindow)
    const end = Math.min(chunkIndex + 1 + stream.window, this.#target.chunkCount)
    for (let i = chunkIndex + 1; i < end; i++) this.#target.prefetch(i)
    stream.position = chunkIndex + 1
    stream.end = Math.max(end, chunkIndex + 1)
    // Early in the window, so that the next one is under way before this one is read.
    const mark = chunkIndex + 1 + (stream.window >> 2)
    if (mark < end) this.#target.mark(mark)
  }
}
