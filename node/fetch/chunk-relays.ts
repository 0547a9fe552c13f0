import type { Digest } from '../../protocol/digest.ts'
import type { Urgency } from '../base/urgency.ts'
import type { Inventory } from '../store/inventory.ts'
import type { Fetcher } from './fetcher.ts'

export interface ChunkRelaysParts {
  inventory: Pick<Inventory, 'requestOf'>
  fetcher: Pick<Fetcher, 'fetch'>
}

/** Reads chunks from the registry for other members: see {@link SpanReaders}. */
export class ChunkRelays {
  readonly #parts: ChunkRelaysParts

  constructor(parts: ChunkRelaysParts) {
    this.#parts = parts
  }

  /**
   * The chunk, which this host keeps too; undefined where no segment of its own images has it: it reads nothing that it
   * would not need itself.
   * @throws as the fetcher does
   */
  async chunk(
    digest: Digest,
    { signal, urgency }: { signal: AbortSignal; urgency: Urgency },
  ): Promise<Uint8Array | undefined> {
    const request = this.#parts.inventory.requestOf(digest)
    if (request === undefined) return undefined
    const fetch = async (priority: 'demand' | 'boot'): Promise<Uint8Array> =>
      (await this.#parts.fetcher.fetch(request, { signal, priority, asReader: true })).bytes
    if (urgency.isUrgent) return await fetch('demand')
    // The flight is the same one; whoever has come to wait moves it up.
    urgency.onRaise(() => void fetch('demand').catch(() => undefined))
    return await fetch('boot')
  }
}
