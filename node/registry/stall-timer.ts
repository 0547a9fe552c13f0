import { P2pfsError } from '../../protocol/errors.ts'

export interface StallTimerParts {
  /** Ends the request. */
  cut: (reason: P2pfsError) => void
}

export interface StallTimerOptions {
  host: string
  /** The request, for messages. */
  subject: string
}

/** Ends a request whose answer does not come, or stops. The reader's own time does not count. */
export class StallTimer {
  readonly #parts: StallTimerParts
  readonly #options: StallTimerOptions
  #timer: NodeJS.Timeout | undefined

  constructor(parts: StallTimerParts, options: StallTimerOptions) {
    this.#parts = parts
    this.#options = options
  }

  /** From now on the answer should begin within `ms`. */
  awaitAnswer(ms: number): void {
    const { host, subject } = this.#options
    this.#start(ms, `${host} does not answer within ${ms / 1000} s; it was asked for ${subject}`)
  }

  /** From now on more of the body should come within `ms`. */
  awaitBody(ms: number): void {
    const { host, subject } = this.#options
    this.#start(ms, `${host} has stopped sending ${subject}: nothing has come for ${ms / 1000} s`)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #start(ms: number, message: string): void {
    this.stop()
    const { host } = this.#options
    this.#timer = setTimeout(() => this.#parts.cut(new P2pfsError('timeout', message, { host })), ms)
  }
}
