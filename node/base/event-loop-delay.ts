import { monitorEventLoopDelay } from 'node:perf_hooks'

/** How often the delay is measured (ms). */
const resolutionMs = 10
const windowMs = 60_000
const nanosecondsPerMs = 1e6

/** Percentiles (ms). */
export interface Delay {
  p50: number
  p99: number
  max: number
}

/** How long the event loop of this thread lets what is due wait: long delays are long answers to all who ask. */
export class EventLoopDelay implements Disposable {
  readonly #monitor = monitorEventLoopDelay({ resolution: resolutionMs })
  readonly #timer: NodeJS.Timeout
  /** The delay of the minute before the current one. */
  #before: Delay = { p50: 0, p99: 0, max: 0 }

  constructor() {
    this.#monitor.enable()
    this.#timer = setInterval(() => {
      this.#before = this.#underWay()
      this.#monitor.reset()
    }, windowMs).unref()
  }

  /** Returns the delay of the current minute, or of the minute before if that was worse. */
  figures(): Delay {
    const [now, before] = [this.#underWay(), this.#before]
    return {
      p50: Math.max(now.p50, before.p50),
      p99: Math.max(now.p99, before.p99),
      max: Math.max(now.max, before.max),
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#monitor.disable()
  }

  #underWay(): Delay {
    const { count, max } = this.#monitor
    // The histogram has the time from one tick to the next, so the interval is subtracted.
    const delayMs = (nanoseconds: number): number =>
      count === 0 ? 0 : Math.max(0, Math.round((nanoseconds / nanosecondsPerMs - resolutionMs) * 10) / 10)
    return { p50: delayMs(this.#monitor.percentile(50)), p99: delayMs(this.#monitor.percentile(99)), max: delayMs(max) }
  }
}
