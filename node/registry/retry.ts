import { isP2pfsError } from '../../protocol/errors.ts'

export interface RetryClock {
  sleep: (ms: number, signal: AbortSignal) => Promise<void>
  random: () => number
}

/** Tries in all, and the pause before the second, doubled each time, milliseconds. */
const attempts = 5
const firstPauseMs = 200
/** The longest pause, also where the registry asks for a longer one, milliseconds. */
const maxPauseMs = 30_000

/**
 * Runs `task` again after failures that may pass (`unavailable`, `timeout`, `busy`): exponential backoff with full
 * jitter, or what the registry asked for in `retryAfterMs`.
 */
export async function withRetry<T>(task: () => Promise<T>, { signal, clock }: { signal: AbortSignal; clock: RetryClock }): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await task()
    } catch (error) {
      if (signal.aborted || attempt === attempts || !isP2pfsError(error, 'unavailable', 'timeout', 'busy')) throw error
      await clock.sleep(pauseMs(attempt, error.details['retryAfterMs'], clock), signal)
    }
  }
}

/** The pause after failure number `attempt`. */
export function pauseMs(attempt: number, asked: unknown, { random }: Pick<RetryClock, 'random'>): number {
  const backoff = firstPauseMs * 2 ** (attempt - 1) * (0.5 + random() / 2)
  return Math.min(Math.max(backoff, typeof asked === 'number' ? asked : 0), maxPauseMs)
}
