import { setTimeout as sleep } from 'node:timers/promises'
import type { Digest } from '../../protocol/digest.ts'
import type { Log } from '../base/log.ts'

/** Between two rounds over all chunks, so that a small store is not read without pause (ms). */
const roundPauseMs = 10 * 60_000
/** The pause of a scrubber whose read was cut short by an error of the disk (ms). */
const errorPauseMs = 1_000

export interface ScrubberParts {
  inventory: {
    digests: () => Iterable<Digest>
    /** Reads the chunk anew and hashes it; a damaged one is discarded. @returns its length (bytes); 0 where it is gone */
    scrub: (digest: Digest) => Promise<number>
  }
  log: Log
}

/**
 * Reads all chunks of this host again and again, at a bounded rate, and discards those that the disk has damaged. They
 * are fetched anew when they are read. Reads hash a chunk once and then trust it for as long as its file does not
 * change; the scrubber finds what a disk changes without a trace.
 */
export class Scrubber implements AsyncDisposable {
  readonly #parts: ScrubberParts
  readonly #bytesPerSecond: number
  readonly #stopping = new AbortController()
  #running: Promise<void> = Promise.resolve()

  /** @param options `bytesPerSecond`: how much is read and hashed at most */
  constructor(parts: ScrubberParts, { bytesPerSecond }: { bytesPerSecond: number }) {
    this.#parts = parts
    this.#bytesPerSecond = bytesPerSecond
  }

  start(): void {
    this.#running = this.#run().catch((error: unknown) => {
      if (!this.#stopping.signal.aborted) this.#parts.log.error('scrubbing of chunks has ended', { error })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const options = { signal: this.#stopping.signal, ref: false }
    for (;;) {
      await sleep(roundPauseMs, undefined, options)
      for (const digest of this.#parts.inventory.digests()) {
        const lengthBytes = await this.#scrub(digest)
        const pauseMs = lengthBytes === undefined ? errorPauseMs : (lengthBytes / this.#bytesPerSecond) * 1_000
        await sleep(pauseMs, undefined, options)
      }
    }
  }

  async #scrub(digest: Digest): Promise<number | undefined> {
    try {
      return await this.#parts.inventory.scrub(digest)
    } catch (error) {
      this.#parts.log.warn('chunk cannot be read for its check', { error, digest })
      return undefined
    }
  }
}
