import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Urgency } from '../base/urgency.ts'
import type { SpanStewards } from '../peers/spans/span-stewards.ts'
import type { Inventory } from '../store/inventory.ts'
import type { Fetcher } from './fetcher.ts'

export interface ChunkRelaysParts {
  inventory: Pick<Inventory, 'requestOf'>
  fetcher: Pick<Fetcher, 'fetch'>
  spans: Pick<SpanStewards, 'depthOf'>
}

/** Gets chunks for other members, which stewards have sent to this host: see {@link SpanStewards}. */
export class ChunkRelays {
  readonly #parts: ChunkRelaysParts

  constructor(parts: ChunkRelaysParts) {
    this.#parts = parts
  }

  /**
   * The chunk, which this host keeps too; undefined where no segment of its own images has it: it reads nothing that it
   * would not need itself. It comes from the registry, or from the member that this host was sent to itself.
   * @param options `depth`: how deep the asker is in the span's tree of relays
   * @throws busy where this host is not above the asker; as the fetcher does
   */
  async chunk(
    digest: Digest,
    { signal, urgency, depth }: { signal: AbortSignal; urgency: Urgency; depth: number },
  ): Promise<Uint8Array | undefined> {
    const request = this.#parts.inventory.requestOf(digest)
    if (request === undefined) return undefined
    // One that is not placed yet finds out where it gets the chunk, as for a read of its own.
    const own = this.#parts.spans.depthOf(request.table, request.index)
    if (own !== undefined && own > 0 && own >= depth)
      throw new P2pfsError('busy', 'this host was sent for the chunk to a member no less deep', { digest })
    const asReader = own === 0
    const fetch = async (priority: 'demand' | 'boot'): Promise<Uint8Array> =>
      (await this.#parts.fetcher.fetch(request, { signal, priority, asReader })).bytes
    if (urgency.isUrgent) return await fetch('demand')
    // The flight is the same one; whoever has come to wait moves it up.
    urgency.onRaise(() => void fetch('demand').catch(() => undefined))
    return await fetch('boot')
  }
}
