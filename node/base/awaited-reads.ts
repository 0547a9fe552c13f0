import { systemClock, type Clock } from './clock.ts'
import type { Urgency } from './urgency.ts'

/** For so long after a read that somebody waited for, another one is expected (ms): a program that starts reads so. */
const quietMs = 250
/**
 * The longest pause of work that nobody waits for, while somebody waits for a read (ms): a read may wait for minutes. So an import
 * goes on at some 250 KB a second.
 */
const longestPauseMs = 250
/** The same for each piece in the time after such a read (ms): a piece of 64 KiB of a layer takes about one of a core, so nine of ten are left. */
const pauseMs = 10

/**
 * The reads of this host that somebody waits for, and how other work makes way for them: it takes the CPU, the disk and the
 * link that a read needs. Nothing is measured, and no rate is set: that work gets the less, the longer reads take.
 */
export class AwaitedReads {
  readonly #clock: Clock
  #awaited = 0
  #lastMs = -Infinity
  /** Bounded by the parts that listen, and by the pieces of work that pause. */
  readonly #onNone = new Set<() => void>()

  constructor({ clock = systemClock }: { clock?: Clock } = {}) {
    this.#clock = clock
  }

  /** `now`: somebody waits for a read; `lately`: somebody did a moment ago; `no`. */
  get current(): 'now' | 'lately' | 'no' {
    if (this.#awaited > 0) return 'now'
    return this.#clock.now() - this.#lastMs < quietMs ? 'lately' : 'no'
  }

  /** Runs what somebody waits for. @throws what it throws */
  async during<T>(read: () => Promise<T>): Promise<T> {
    this.#awaited++
    try {
      return await read()
    } finally {
      this.#awaited--
      this.#lastMs = this.#clock.now()
      if (this.#awaited === 0) for (const call of this.#onNone) call()
    }
  }

  /** Calls whenever nobody waits for a read any more. @returns ends that */
  onNone(call: () => void): () => void {
    this.#onNone.add(call)
    return () => void this.#onNone.delete(call)
  }

  /**
   * Before each piece of work that may have nobody who waits for it.
   * @returns resolves when the piece may be done: at once when somebody comes to wait for it, or the signal fires. Undefined where it may
   *   be done now
   */
  makeWay({ urgency, signal }: { urgency: Urgency; signal: AbortSignal }): Promise<void> | undefined {
    const { current } = this
    if (urgency.isUrgent || signal.aborted || current === 'no') return undefined
    return this.#pause(current, urgency, signal)
  }

  async #pause(current: 'now' | 'lately', urgency: Urgency, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const onAbort = (): void => resolve()
    const cancels = [
      this.#clock.after(current === 'now' ? longestPauseMs : pauseMs, resolve),
      urgency.onRaise(resolve),
      ...(current === 'now' ? [this.onNone(resolve)] : []),
    ]
    signal.addEventListener('abort', onAbort, { once: true })
    await promise
    signal.removeEventListener('abort', onAbort)
    for (const cancel of cancels) cancel()
  }
}
