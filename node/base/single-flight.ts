/**
 * Resolves or rejects as `promise` does, or rejects with the signal's reason when that comes first.
 * The work behind `promise` is not stopped by it.
 */
export async function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  const aborted = Promise.withResolvers<never>()
  const onAbort = (): void => aborted.reject(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** One run of a task per key, whoever asks for it; it is aborted when the last of those who wait gives up. */
export class SingleFlight<T> {
  readonly #flights = new Map<string, { result: Promise<T>; abort: AbortController; waiters: number }>()

  async run(key: string, signal: AbortSignal, task: (signal: AbortSignal) => Promise<T>): Promise<T> {
    signal.throwIfAborted()
    let flight = this.#flights.get(key)
    if (flight === undefined) {
      const abort = new AbortController()
      const created = { result: task(abort.signal), abort, waiters: 0 }
      const forget = (): void => {
        if (this.#flights.get(key) === created) this.#flights.delete(key)
      }
      created.result.then(forget, forget)
      abort.signal.addEventListener('abort', forget, { once: true })
      this.#flights.set(key, created)
      flight = created
    }
    flight.waiters++
    try {
      return await orAbort(flight.result, signal)
    } finally {
      flight.waiters--
      if (flight.waiters === 0) flight.abort.abort()
    }
  }
}
