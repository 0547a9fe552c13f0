import { Urgency } from '../base/urgency.ts'
import type { Bandwidth } from '../base/bandwidth.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import type { Inventory } from '../store/inventory.ts'
import type { Fetcher } from './fetcher.ts'

export interface LimitedFetcherParts {
  fetcher: Pick<Fetcher, 'fetchToStore' | 'settled'>
  inventory: Pick<Inventory, 'has'>
  /** A limit on what this gets, from wherever it comes. */
  bandwidth: Pick<Bandwidth, 'take'>
}

/** Fetches chunks for work that nobody waits for, as fast as its limit lets it. */
export class LimitedFetcher {
  readonly #parts: LimitedFetcherParts

  constructor(parts: LimitedFetcherParts) {
    this.#parts = parts
  }

  /** See {@link Fetcher.fetchToStore}. */
  async fetchToStore(
    request: ChunkRequest,
    options: Parameters<Fetcher['fetchToStore']>[1],
  ): ReturnType<Fetcher['fetchToStore']> {
    const { fetcher, inventory, bandwidth } = this.#parts
    if (!inventory.has(request.digest))
      await bandwidth.take(request.lengthBytes, { signal: options.signal, urgency: new Urgency(false) })
    return await fetcher.fetchToStore(request, options)
  }

  /** See {@link Fetcher.settled}. */
  async settled(): Promise<void> {
    await this.#parts.fetcher.settled()
  }
}
