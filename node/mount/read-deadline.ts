import { setTimeout as sleep } from 'node:timers/promises'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'

/**
 * The pause before all sources are asked again (ms): short if the failure may pass by itself, longer if a person has to
 * act.
 */
const pauseMs = { passing: 1_000, lasting: 5_000 }

/**
 * Repeats an attempt until it succeeds or the deadline has passed, because an error breaks a reader and a pause does
 * not. Wrong bytes, and the end of the daemon, are final at once.
 * @param options `statedMs`: the deadline that the message states, if a read is the rest of an earlier one (ms);
 *   `onFailure`: told of each attempt that fails
 * @throws timeout, with the failure of the last attempt; invalid; closed; the signal's reason
 */
export async function withinDeadline<T>(
  attempt: (options: { signal: AbortSignal }) => Promise<T>,
  {
    signal,
    deadlineMs,
    statedMs = deadlineMs,
    onFailure,
  }: { signal: AbortSignal; deadlineMs: number; statedMs?: number; onFailure?: (error: unknown) => void },
): Promise<T> {
  const deadline = new AbortController()
  const timer = setTimeout(
    () => deadline.abort(new P2pfsError('timeout', `no source has delivered it within ${statedMs / 1000} s`)),
    deadlineMs,
  )
  const limited = AbortSignal.any([signal, deadline.signal])
  let failure: unknown
  try {
    for (;;) {
      limited.throwIfAborted()
      try {
        return await attempt({ signal: limited })
      } catch (error) {
        if (limited.aborted || isP2pfsError(error, 'invalid', 'closed')) throw error
        failure = error
        onFailure?.(error)
      }
      const isPassing = isP2pfsError(failure, 'unavailable', 'timeout', 'busy')
      await sleep(isPassing ? pauseMs.passing : pauseMs.lasting, undefined, { signal: limited })
    }
  } catch (error) {
    if (signal.aborted || !deadline.signal.aborted) throw error
    const cause = failure ?? error
    const { message } = deadline.signal.reason as Error
    throw new P2pfsError('timeout', `${message}: ${(cause as Error).message}`, { cause })
  } finally {
    clearTimeout(timer)
  }
}
