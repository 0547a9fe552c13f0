import { isP2pfsError } from '../../protocol/errors.ts'

export interface RetryClock {
  /** @throws the signal's reason */
  sleep: (ms: number, signal: AbortSignal) => Promise<void>
  random: () => number
}

export interface Clock extends RetryClock {
  now: () => number
}

/** Tries in all. */
const maxAttempts = 5
/** The pause before the second try, doubled for each one after it (ms). */
const firstPauseMs = 200
/** The longest pause; a registry that asks for a longer one is not asked again (ms). */
export const maxPauseMs = 30_000

/** Somebody waits: no try begins later than this after the first, or after the last bytes that came (ms). */
export const retryBudgetMs = 90_000

/**
 * The longest pause of a read that somebody waits for, and its budget, unless the registry asks for more (ms). After
 * the budget the other sources of the read are asked again.
 */
export const urgentPauseMs = 1_000
export const urgentBudgetMs = 10_000

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal.reason as Error)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal.addEventListener('abort', onAbort, { once: true })
  })
}

/** A monotonic clock: setting the system's time does not prolong a pause. */
const now = (): number => performance.timeOrigin + performance.now()

export const realClock: Clock = { now, random: Math.random, sleep }

/**
 * Runs `task` again after failures that may pass (`unavailable`, `timeout`, `busy`). The pauses are exponential backoff
 * with jitter, or what the registry asked for in `retryAfterMs`.
 */
export async function withRetry<T>(
  task: () => Promise<T>,
  { signal, clock }: { signal: AbortSignal; clock: Clock },
): Promise<T> {
  const begunAtMs = clock.now()
  for (let attempt = 1; ; attempt++) {
    try {
      return await task()
    } catch (error) {
      const pause = signal.aborted || attempt === maxAttempts ? undefined : pauseMs(attempt, error, clock)
      if (pause === undefined || clock.now() + pause - begunAtMs > retryBudgetMs) throw error
      await clock.sleep(pause, signal)
    }
  }
}

/** The pause after failure number `attempt`; undefined for a failure that does not pass, or not soon (ms). */
export function pauseMs(
  attempt: number,
  error: unknown,
  { random }: Pick<RetryClock, 'random'>,
  maxBackoffMs = maxPauseMs,
): number | undefined {
  if (!isP2pfsError(error, 'unavailable', 'timeout', 'busy')) return undefined
  const retryAfterMs = error.details['retryAfterMs']
  const askedMs = typeof retryAfterMs === 'number' ? retryAfterMs : 0
  if (askedMs > maxPauseMs) return undefined
  const backoffMs = Math.min(firstPauseMs * 2 ** (attempt - 1), maxBackoffMs) * (0.5 + random() / 2)
  return Math.min(Math.max(backoffMs, askedMs), maxPauseMs)
}
