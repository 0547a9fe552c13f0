import { EventHeap, SimulatedEvent } from './event-heap.ts'

/** The functions of the process as they were before {@link installClock} replaced them. */
const real = {
  setImmediate: globalThis.setImmediate,
  now: performance.now.bind(performance),
  /**
   * Runs all microtasks, and what `process.nextTick` was given; a turn of Node's loop, which does the same, takes 3 us
   * for the kernel.
   */
  settle: (Reflect.get(process, '_tickCallback') as () => void).bind(process),
}

/** Events that happen in one turn of Node's loop (a count): it takes signals and output in between. */
const stepsOfTurn = 64

/** Events that happen in a run without the virtual time going on: more are a loop (a count). */
const maxAtOneTime = 5_000_000

/**
 * The time of a simulation (ms). It stands still while code runs, and jumps to the next event when nothing is left to
 * run: promises, microtasks and immediates come before it.
 */
export class VirtualClock {
  readonly #heap = new EventHeap()
  #nowMs = 0
  #order = 0
  /** Events that have happened. */
  count = 0
  /** Called before each event that happens: for a hash of all of them. */
  onEvent: ((event: SimulatedEvent) => void) | undefined

  now = (): number => this.#nowMs

  /** Events that have not happened, with some of those that were cancelled. */
  get waiting(): number {
    return this.#heap.size
  }

  /** Calls `call` once after so many milliseconds, in the order of time and then of asking. */
  after(ms: number, call: () => void): SimulatedEvent {
    const atMs = this.#nowMs + (ms > 0 ? ms : 0)
    const event = new SimulatedEvent(atMs, this.#order++, call)
    this.#heap.push(event)
    return event
  }

  /**
   * Lets time pass until `isOver` says so, or the time has come, or nothing is left to happen.
   * Between two events all microtasks run. There are no immediates of the process: {@link installClock} makes them events.
   * @throws what an event throws; an error where time does not get on
   */
  async run({ untilMs = Infinity, isOver }: { untilMs?: number; isOver?: () => boolean } = {}): Promise<void> {
    const turn = Promise.withResolvers<void>()
    let atThisTime = 0
    /** @returns whether time goes on */
    const step = (): boolean => {
      if (isOver?.() === true) return false
      const next = this.#heap.peek()
      if (next === undefined || next.atMs > untilMs) {
        if (untilMs !== Infinity) this.#nowMs = Math.max(this.#nowMs, untilMs)
        return false
      }
      this.#heap.pop()
      atThisTime = next.atMs > this.#nowMs ? 0 : atThisTime + 1
      if (atThisTime > maxAtOneTime) throw new Error(`time stands still at ${this.#nowMs} ms`)
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      this.count++
      this.onEvent?.(next)
      next.happen()
      real.settle()
      return true
    }
    const steps = (): void => {
      try {
        for (let i = 0; i < stepsOfTurn; i++) if (!step()) return turn.resolve()
        real.setImmediate(steps)
      } catch (error) {
        turn.reject(error)
      }
    }
    // The first step comes when what is under way has settled.
    real.setImmediate(steps)
    await turn.promise
  }
}

/** The time that a run really takes (ms). */
export function realNow(): number {
  return real.now()
}
