import { setTimeout as sleep } from 'node:timers/promises'
import { P2pfsError } from '../../protocol/errors.ts'

/** The pause between two questions of {@link eventually}. */
const pollMs = 25

/**
 * Asks `probe` until it returns something other than undefined, and returns that.
 *
 * @throws timeout after `timeoutMs`, with the last error of `probe` as its cause
 */
export async function eventually<T>(
  what: string,
  probe: () => Promise<T | undefined>,
  { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal },
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  let cause: unknown
  for (;;) {
    signal?.throwIfAborted()
    try {
      const answer = await probe()
      if (answer !== undefined) return answer
      cause = undefined
    } catch (error) {
      cause = error
    }
    if (performance.now() > deadline) {
      throw new P2pfsError('timeout', `${what}: not within ${timeoutMs} ms`, cause === undefined ? {} : { cause })
    }
    await sleep(pollMs, undefined, signal === undefined ? {} : { signal })
  }
}
