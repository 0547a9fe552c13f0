import { orAbort } from '../base/single-flight.ts'
import { Urgency } from '../base/urgency.ts'

interface LayerRead {
  /** Resolves when the read is over, whether it failed or not. */
  ended: Promise<void>
  watchers: Set<(bytes: number) => void>
  /** Whether any of those who need it waits for it. */
  urgency: Urgency
}

/** One read of a layer at a time: another that needs the layer waits for the result, and sees how far the read is. */
export class SharedLayerReads<T> {
  readonly #reads = new Map<string, LayerRead>()

  /**
   * @param key the layer, and where it is read from
   * @param stored gets the result that an earlier read has left
   * @param read is called when nobody else is reading the layer, and no read that was waited for has left a result
   */
  async run(
    key: string,
    {
      signal,
      onBytes,
      urgency = new Urgency(true),
    }: { signal: AbortSignal; onBytes: (bytes: number) => void; urgency?: Urgency | undefined },
    stored: () => Promise<T | undefined>,
    read: (onBytes: (bytes: number) => void, urgency: Urgency) => Promise<T>,
  ): Promise<T> {
    for (let running = this.#reads.get(key); running !== undefined; running = this.#reads.get(key)) {
      const { watchers } = running
      watchers.add(onBytes)
      running.urgency.follow(urgency)
      await orAbort(running.ended, signal).finally(() => watchers.delete(onBytes))
      const result = await stored()
      if (result !== undefined) return result
    }
    const watchers = new Set([onBytes])
    const shared = Urgency.ofAny([urgency])
    const result = read((bytes) => {
      for (const watcher of watchers) watcher(bytes)
    }, shared)
    const ended = result.then(
      () => undefined,
      () => undefined,
    )
    this.#reads.set(key, { ended, watchers, urgency: shared })
    try {
      return await result
    } finally {
      this.#reads.delete(key)
    }
  }
}
