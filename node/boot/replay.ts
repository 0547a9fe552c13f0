import type { Log } from '../base/log.ts'

/** The image whose boot is replayed. Chunks are named by their position in it. */
export interface ReplayTarget {
  has: (chunk: number) => boolean
  lengthAt: (chunk: number) => number
  /**
   * Whether a peer has the chunk. The registry is asked for many of the others at once, so that ranges can be put
   * together.
   */
  isHeld: (chunk: number) => boolean
  fetch: (chunk: number, options: { signal: AbortSignal }) => Promise<unknown>
}

/**
 * Limits of the bytes that are under way from peers. The lower one fills a line of 25 Mbit/s with a round trip of 150
 * ms, the upper one a line of 1 Gbit/s with 60 ms.
 */
const minWindowBytes = 512 * 1024
const maxWindowBytes = 8 * 1024 * 1024
/**
 * The window grows while a chunk arrives within this time (ms): that is how long a reader may have to wait for a chunk
 * that is under way, or that queues behind others.
 */
const patienceMs = 200
/** Chunks that are under way from the registry. */
const maxElsewhere = 256
/** The replay is given up when this many chunks did not come: nobody waits for it. */
const maxFailures = 16

/** Fetches the chunks that a boot will read, in that order, ahead of the reader. */
export class ProfileReplay {
  readonly #target: ReplayTarget
  readonly #log: Log
  readonly #now: () => number
  readonly #chunks: readonly number[]
  /** All chunks of the profile that the image has. */
  readonly total = { bytes: 0, chunks: 0 }
  /** Those that are on this host. */
  readonly done = { bytes: 0, chunks: 0 }
  /** Those that the replay has fetched, alone or together with a reader. */
  readonly fetched = { bytes: 0, chunks: 0 }
  #windowBytes = 2 * minWindowBytes
  #underWayBytes = 0
  #elsewhere = 0
  #failures = 0
  #room = Promise.withResolvers<void>()

  constructor(
    { target, log, now = () => performance.now() }: { target: ReplayTarget; log: Log; now?: () => number },
    chunks: readonly number[],
  ) {
    this.#target = target
    this.#log = log
    this.#now = now
    this.#chunks = chunks
    for (const chunk of chunks) count(this.total, target.lengthAt(chunk))
  }

  /** Resolves when all chunks are here, or no more will come; never rejects. */
  async run({ signal }: { signal: AbortSignal }): Promise<void> {
    const running = new Set<Promise<void>>()
    for (const chunk of this.#chunks) {
      const lengthBytes = this.#target.lengthAt(chunk)
      if (this.#target.has(chunk)) {
        count(this.done, lengthBytes)
        continue
      }
      let held = this.#target.isHeld(chunk)
      while (!this.#hasRoom(held, lengthBytes) && !signal.aborted) {
        await this.#room.promise
        held = this.#target.isHeld(chunk)
      }
      if (this.#target.has(chunk)) {
        count(this.done, lengthBytes)
        continue
      }
      if (signal.aborted || this.#failures >= maxFailures) break
      const fetching = this.#fetch(chunk, lengthBytes, held, signal).finally(() => running.delete(fetching))
      running.add(fetching)
    }
    await Promise.all(running)
    const { chunks, bytes } = this.fetched
    this.#log.debug('boot replayed', { chunks, bytes, of: this.total.chunks, failures: this.#failures })
  }

  #hasRoom(held: boolean, lengthBytes: number): boolean {
    if (!held) return this.#elsewhere < maxElsewhere
    return this.#underWayBytes === 0 || this.#underWayBytes + lengthBytes <= this.#windowBytes
  }

  async #fetch(chunk: number, lengthBytes: number, held: boolean, signal: AbortSignal): Promise<void> {
    if (held) this.#underWayBytes += lengthBytes
    else this.#elsewhere++
    const startedAt = this.#now()
    try {
      await this.#target.fetch(chunk, { signal })
      count(this.done, lengthBytes)
      count(this.fetched, lengthBytes)
      if (held) this.#adapt(this.#now() - startedAt, lengthBytes)
    } catch (error) {
      // The read that needs the chunk tries again, and reports the failure.
      this.#failures++
      this.#log.debug('chunk of a boot profile was not delivered', { error, chunk })
    } finally {
      if (held) this.#underWayBytes -= lengthBytes
      else this.#elsewhere--
      this.#room.resolve()
      this.#room = Promise.withResolvers()
    }
  }

  #adapt(ms: number, lengthBytes: number): void {
    const changed = this.#windowBytes + (ms < patienceMs ? lengthBytes : -lengthBytes)
    this.#windowBytes = Math.min(Math.max(changed, minWindowBytes), maxWindowBytes)
  }
}

function count(amount: { bytes: number; chunks: number }, bytes: number): void {
  amount.bytes += bytes
  amount.chunks++
}
