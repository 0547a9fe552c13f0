import { isP2pfsError } from '../../protocol/errors.ts'

export interface RetryClock {
  sleep: (ms: number, signal: AbortSignal) => Promise<void>
  random: () => number
}

export interface Clock extends RetryClock {
  now: () => number
}

/** Tries in all, and the pause before the second, doubled each time, milliseconds. */
const attempts = 5
const firstPauseMs = 200
/** The longest pause; a registry that asks for a longer one is not asked again, milliseconds. */
export const maxPauseMs = 30_000

/** No new try when it would begin later than this after the first, or after the last bytes that came: somebody waits, milliseconds. */
export const retryBudgetMs = 90_000

/** Where a read waits: the longest pause, and the budget, after which its other sources are asked again; unless the registry asks for more, milliseconds. */
export const urgentPauseMs = 1_000
export const urgentBudgetMs = 10_000

/** @throws the signal's reason */
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

/** Time that nobody sets back: a pause until then has an end. */
const now = (): number => performance.timeOrigin + performance.now()

export const realClock: Clock = { now, random: Math.random, sleep }

/**
 * Runs `task` again after failures that may pass (`unavailable`, `timeout`, `busy`): exponential backoff with jitter, or
 * what the registry asked for in `retryAfterMs`.
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
      const pause = signal.aborted || attempt === attempts ? undefined : pauseMs(attempt, error, clock)
      if (pause === undefined || clock.now() + pause - begunAtMs > retryBudgetMs) throw error
      await clock.sleep(pause, signal)
    }
  }
}

/** The pause after failure number `attempt`; undefined for what does not pass, or not soon. */
export function pauseMs(
  attempt: number,
  error: unknown,
  { random }: Pick<RetryClock, 'random'>,
  maxBackoffMs = maxPauseMs,
): number | undefined {
  if (!isP2pfsError(error, 'unavailable', 'timeout', 'busy')) return undefined
  const asked = error.details['retryAfterMs']
  if (typeof asked === 'number' && asked > maxPauseMs) return undefined
  const backoff = Math.min(firstPauseMs * 2 ** (attempt - 1), maxBackoffMs) * (0.5 + random() / 2)
  return Math.min(Math.max(backoff, typeof asked === 'number' ? asked : 0), maxPauseMs)
}
