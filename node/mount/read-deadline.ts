import { setTimeout as sleep } from 'node:timers/promises'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'

/** The pause before all sources are asked again: a second if it may pass by itself; otherwise somebody has to act. Milliseconds. */
const pauseMs = { passing: 1_000, other: 5_000 }

/**
 * What a read waits for: tried again after failures, because an error breaks a reader and a pause does not, and given up when
 * the deadline has passed. Bytes that are wrong are given up at once.
 * @param options `statedMs`: the deadline that the message states, if a read is the rest of an earlier one (ms)
 * @throws timeout, with what the last try failed with; invalid; the signal's reason
 */
export async function withinDeadline<T>(
  attempt: (options: { signal: AbortSignal }) => Promise<T>,
  { signal, deadlineMs, statedMs = deadlineMs }: { signal: AbortSignal; deadlineMs: number; statedMs?: number },
): Promise<T> {
  const late = new AbortController()
  const timer = setTimeout(
    () => late.abort(new P2pfsError('timeout', `nobody has delivered it within ${statedMs / 1000} s`)),
    deadlineMs,
  )
  const either = AbortSignal.any([signal, late.signal])
  let failure: unknown
  try {
    for (;;) {
      either.throwIfAborted()
      try {
        return await attempt({ signal: either })
      } catch (error) {
        if (either.aborted || isP2pfsError(error, 'invalid', 'closed')) throw error
        failure = error
      }
      await sleep(
        isP2pfsError(failure, 'unavailable', 'timeout', 'busy') ? pauseMs.passing : pauseMs.other,
        undefined,
        { signal: either },
      )
    }
  } catch (error) {
    if (signal.aborted || !late.signal.aborted) throw error
    const cause = failure ?? error
    throw new P2pfsError('timeout', `${(late.signal.reason as Error).message}: ${(cause as Error).message}`, { cause })
  } finally {
    clearTimeout(timer)
  }
}
