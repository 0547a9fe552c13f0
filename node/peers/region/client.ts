import type { Stream } from '@libp2p/interface'
import { encodeRegionMessage, type RegionMessage } from '../../../protocol/messages/region.ts'
import type { Log } from '../../base/log.ts'
import { writeFrame } from '../frames.ts'

/** Messages that may wait for one slow peer. */
const maxQueuedMessages = 4096

/** This host's region stream to one peer: sends messages in order. */
export class RegionClient {
  readonly #stream: Stream
  readonly #log: Log
  readonly #signal: AbortSignal
  #lastSent: Promise<void> = Promise.resolve()
  #queued = 0

  /** @param parts `signal`: ends what waits to be sent */
  constructor(stream: Stream, { log, signal }: { log: Log; signal: AbortSignal }) {
    this.#stream = stream
    this.#log = log
    this.#signal = signal
  }

  /** Queues the message. @returns false where too many messages wait already: the message is lost */
  send(message: RegionMessage): boolean {
    if (this.#queued >= maxQueuedMessages) return false
    // The bitmap of a have changes later on. It is encoded now, because its changes are sent as messages of their own.
    const bytes = encodeRegionMessage(message)
    this.#queued++
    this.#lastSent = this.#lastSent
      .then(async () => await writeFrame(this.#stream, [bytes], { signal: this.#signal }))
      .catch((error: unknown) => this.#log.debug('region message cannot be sent', { error }))
      .finally(() => this.#queued--)
    return true
  }
}
