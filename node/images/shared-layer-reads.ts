import type { Digest } from '../../protocol/digest.ts'
import { orAbort } from '../base/single-flight.ts'

interface Reading {
  /** Resolves when it is over, either way. */
  ended: Promise<void>
  watchers: Set<(bytes: number) => void>
}

/** One reading of a layer at a time: another import that needs the layer waits for what comes of it, and sees how far it is. */
export class SharedLayerReads<T> {
  readonly #readings = new Map<Digest, Reading>()

  /**
   * @param known what a reading has left
   * @param read is called when nobody else is reading the layer, and none that did has left anything
   */
  async run(
    diffId: Digest,
    { signal, onBytes }: { signal: AbortSignal; onBytes: (bytes: number) => void },
    known: () => Promise<T | undefined>,
    read: (onBytes: (bytes: number) => void) => Promise<T>,
  ): Promise<T> {
    for (let other = this.#readings.get(diffId); other !== undefined; other = this.#readings.get(diffId)) {
      other.watchers.add(onBytes)
      await orAbort(other.ended, signal).finally(() => other?.watchers.delete(onBytes))
      const found = await known()
      if (found !== undefined) return found
    }
    const watchers = new Set([onBytes])
    const reading = read((bytes) => {
      for (const watcher of watchers) watcher(bytes)
    })
    const ended = reading.then(
      () => undefined,
      () => undefined,
    )
    this.#readings.set(diffId, { ended, watchers })
    try {
      return await reading
    } finally {
      this.#readings.delete(diffId)
    }
  }
}
