import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { inStore, type ChunkRequest, type Delivery } from '../model/chunk-request.ts'
import type { BulkPlane } from '../peers/bulk/bulk-plane.ts'
import type { BulkFetchOptions } from '../peers/bulk/client.ts'
import type { StreamClass } from '../peers/chunk/client.ts'
import { HeldElsewhereError } from '../peers/chunk/stream.ts'

/**
 * A chunk that somebody has come to wait for overtakes all others of its bulk connection. Where it has not come after so
 * long (ms), the peer's main thread is asked too: its bulk thread waits for a disk, or for another peer.
 */
const raisedMs = 250

/** Why the slower of two ways is given up. */
const delivered = new P2pfsError('closed', 'the chunk has come another way')

export interface BulkFetchParts {
  bulk: Pick<BulkPlane, 'fetchToStore'>
  /** Asks the same peer over libp2p. */
  overLibp2p: (streamClass: StreamClass, signal: AbortSignal) => Promise<Uint8Array>
  clock?: Clock
}

/**
 * Fetches a chunk from a peer over its bulk connection; over libp2p where that fails.
 * @throws missing; {@link HeldElsewhereError}; invalid: the peer is banned; what libp2p failed with; the signal's reason
 */
export async function fetchInBulk(
  { bulk, overLibp2p, clock = systemClock }: BulkFetchParts,
  peer: string,
  { digest, lengthBytes }: ChunkRequest,
  { signal, urgency, ...options }: BulkFetchOptions,
): Promise<Delivery> {
  // Most chunks simply come: what is made for each of them is made as cheaply as it can be.
  const over = new AbortController()
  const onAbort = (): void => over.abort(signal.reason)
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  const late = Promise.withResolvers<'late'>()
  let isOver = false
  let cancel: (() => void) | undefined
  urgency.onRaise(() => {
    if (!isOver) cancel = clock.after(raisedMs, () => late.resolve('late'))
  })
  const inBulk = bulk.fetchToStore(peer, digest, lengthBytes, { ...options, signal: over.signal, urgency })
  try {
    const outcome = await Promise.race([inBulk, late.promise]).catch((error: unknown) => {
      // Another way to the same peer may still do.
      const isOver = signal.aborted || error instanceof HeldElsewhereError
      if (isOver || !isP2pfsError(error, 'unavailable', 'timeout', 'busy')) throw error
      return 'failed' as const
    })
    if (outcome === undefined) return inStore
    const asked = overLibp2p(urgency.isUrgent ? 'demand' : 'background', over.signal)
    // The reason that counts is libp2p's, where both fail.
    return await Promise.any([inBulk.then((): Delivery => inStore), asked])
      .catch(async () => await asked)
      .finally(() => over.abort(delivered))
  } finally {
    isOver = true
    cancel?.()
    signal.removeEventListener('abort', onAbort)
  }
}
