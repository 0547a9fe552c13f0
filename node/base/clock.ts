/** Time as a part needs it; tests have one of their own. */
export interface Clock {
  /** Milliseconds from any origin; never goes back. */
  now: () => number
  /** Calls `call` once after so many milliseconds. @returns cancels the call */
  after: (ms: number, call: () => void) => () => void
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after: (ms, call) => {
    const timer = setTimeout(call, ms)
    return () => clearTimeout(timer)
  },
}

/** Resolves after so many milliseconds, or when the signal fires: whoever waits looks at the signal. */
export async function pause(clock: Clock, ms: number, { signal }: { signal: AbortSignal }): Promise<void> {
  if (signal.aborted) return
  const over = Promise.withResolvers<void>()
  const cancel = clock.after(ms, over.resolve)
  const onAbort = (): void => over.resolve()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await over.promise
  } finally {
    cancel()
    signal.removeEventListener('abort', onAbort)
  }
}
