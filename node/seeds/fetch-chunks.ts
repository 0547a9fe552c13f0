import { isP2pfsError } from '../../protocol/errors.ts'
import { pause, type Clock } from '../base/clock.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import type { ChunkRequest, Source } from '../model/chunk-request.ts'

/** Chunks asked for at once; the fetcher decides how many of them are under way. */
const chunksAhead = 128
/**
 * A copy that no source brings on ends after so long (ms): a host that has just joined hears within this time who holds
 * what, one that relays is replaced by others, and whoever copies at the same time gets on.
 */
const patienceMs = 10_000
/** A chunk that did not come is asked for again after this time (ms). */
const againMs = 500

export interface FetchChunksOptions {
  fetcher: Pick<Fetcher, 'fetchToStore'>
  /** Waited for before a chunk is asked for, once. */
  before?: ((request: ChunkRequest, options: { signal: AbortSignal }) => Promise<void>) | undefined
  clock: Clock
  signal: AbortSignal
}

/**
 * Brings chunks to the disk, 128 at once, at the lowest priority. One that nobody delivers is asked for again as long
 * as others come.
 * @param work what to bring, taken as room becomes free
 * @param onFetched called for each that is here; the next is taken when it resolves
 * @throws what the fetch throws, for a chunk that nobody delivers while no other chunk comes for ten seconds either;
 *   what onFetched throws; the signal's reason
 */
export async function fetchChunks<Item extends ChunkRequest>(
  work: Iterable<Item>,
  { fetcher, before, clock, signal }: FetchChunksOptions,
  onFetched: (item: Item, source: Source) => Promise<void> | void,
): Promise<void> {
  const failed = new AbortController()
  const ended = AbortSignal.any([signal, failed.signal])
  let cameAtMs = clock.now()
  const fetch = async (request: ChunkRequest): Promise<Source> => {
    await before?.(request, { signal: ended })
    ended.throwIfAborted()
    const begunAtMs = clock.now()
    for (;;) {
      try {
        const source = await fetcher.fetchToStore(request, { signal: ended, priority: 'background' })
        cameAtMs = clock.now()
        return source
      } catch (error) {
        const isFinal = !isP2pfsError(error, 'missing', 'unavailable', 'timeout', 'busy')
        if (isFinal || ended.aborted || clock.now() - Math.max(cameAtMs, begunAtMs) >= patienceMs) throw error
      }
      await pause(clock, againMs, { signal: ended })
      ended.throwIfAborted()
    }
  }
  // One iterator for all workers.
  const items = work[Symbol.iterator]()
  const worker = async (): Promise<void> => {
    for (let next = items.next(); next.done !== true; next = items.next()) {
      ended.throwIfAborted()
      await onFetched(next.value, await fetch(next.value))
    }
  }
  try {
    await Promise.all(Array.from({ length: chunksAhead }, worker))
  } catch (error) {
    failed.abort(error)
    throw error
  }
}
