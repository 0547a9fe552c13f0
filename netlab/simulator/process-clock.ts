import { createRequire, syncBuiltinESMExports } from 'node:module'
import type { SimulatedEvent } from './event-heap.ts'
import type { VirtualClock } from './virtual-clock.ts'

/** The day on which every simulation begins: 2026-01-01 (ms since 1970). */
const epochMs = Date.UTC(2026, 0, 1)

/** The timer that setTimeout and its like return: enough of Node's Timeout for code that keeps one. */
class VirtualTimer {
  readonly #clock: VirtualClock
  readonly #ms: number
  readonly #call: () => void
  readonly #repeats: boolean
  #event: SimulatedEvent

  constructor(clock: VirtualClock, ms: number, call: () => void, { repeats = false }: { repeats?: boolean } = {}) {
    this.#clock = clock
    this.#ms = ms
    this.#call = call
    this.#repeats = repeats
    this.#event = clock.after(ms, this.#fire)
  }

  readonly #fire = (): void => {
    if (this.#repeats) this.#event = this.#clock.after(Math.max(this.#ms, 1), this.#fire)
    this.#call()
  }

  clear(): void {
    this.#event.cancel()
  }

  refresh(): this {
    this.clear()
    this.#event = this.#clock.after(this.#ms, this.#fire)
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  hasRef(): boolean {
    return true
  }

  [Symbol.dispose](): void {
    this.clear()
  }
}

type Call = (...args: unknown[]) => void

/**
 * Replaces the clock of this process: timers, immediates, `performance.now`, `Date`, `AbortSignal.timeout` and
 * `node:timers/promises`. Call it before the modules that keep one of these are loaded. There is no way back: the process
 * is a simulation from then on.
 *
 * `@sinonjs/fake-timers` 15.5 leaves `AbortSignal.timeout` alone, and waits for a real timer of a millisecond between two
 * of its own, so that promises settle: a thousand events a second, where a burst has millions.
 */
export function installClock(clock: VirtualClock): void {
  const timeout = (call: Call, ms = 0, ...args: unknown[]): VirtualTimer =>
    new VirtualTimer(clock, Math.max(ms, 1), () => call(...args))
  const interval = (call: Call, ms = 0, ...args: unknown[]): VirtualTimer =>
    new VirtualTimer(clock, Math.max(ms, 1), () => call(...args), { repeats: true })
  const immediate = (call: Call, ...args: unknown[]): VirtualTimer => new VirtualTimer(clock, 0, () => call(...args))
  const clear = (timer: VirtualTimer | undefined): void => timer?.clear()
  const timers = {
    setTimeout: timeout,
    setInterval: interval,
    setImmediate: immediate,
    clearTimeout: clear,
    clearInterval: clear,
    clearImmediate: clear,
  }
  Object.assign(globalThis, timers)
  performance.now = clock.now
  const wallMs = (): number => epochMs + Math.floor(clock.now())
  class VirtualDate extends Date {
    constructor(...args: [] | [number | string]) {
      super(...((args.length === 0 ? [wallMs()] : args) as [number]))
    }

    static override now(): number {
      return wallMs()
    }
  }
  globalThis.Date = VirtualDate as DateConstructor
  AbortSignal.timeout = (ms): AbortSignal => {
    const controller = new AbortController()
    clock.after(ms, () =>
      controller.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError')),
    )
    return controller.signal
  }
  const require = createRequire(import.meta.url)
  Object.assign(require('node:timers') as object, timers)
  const wait = async <T>(ms: number, value: T, signal: AbortSignal | undefined): Promise<T> => {
    signal?.throwIfAborted()
    const over = Promise.withResolvers<T>()
    const event = clock.after(ms, () => over.resolve(value))
    const onAbort = (): void => over.reject(abortError(signal))
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      return await over.promise
    } finally {
      event.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
  }
  interface Options {
    signal?: AbortSignal
  }
  Object.assign(require('node:timers/promises') as object, {
    setTimeout: async (ms = 1, value?: unknown, { signal }: Options = {}) => await wait(Math.max(ms, 1), value, signal),
    setImmediate: async (value?: unknown, { signal }: Options = {}) => await wait(0, value, signal),
  })
  syncBuiltinESMExports()
}

/** As Node's own: an AbortError that has the signal's reason. */
function abortError(signal: AbortSignal | undefined): Error {
  return Object.assign(new Error('The operation was aborted', { cause: signal?.reason }), {
    name: 'AbortError',
    code: 'ABORT_ERR',
  })
}
