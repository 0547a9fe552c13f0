import type { Log } from '../base/log.ts'
import type { Inventory } from './inventory.ts'

export interface PowerLossCheckParts {
  inventory: Pick<Inventory, 'doubtful' | 'get' | 'settled'>
  log: Log
}

/**
 * Hashes, one after the other, the chunks that a power loss may have damaged. Those that are right count as here from then
 * on; the others are discarded. A chunk that is read before its turn is checked then.
 */
export class PowerLossCheck implements AsyncDisposable {
  readonly #parts: PowerLossCheckParts
  readonly #stopping = new AbortController()
  #running: Promise<void> = Promise.resolve()

  constructor(parts: PowerLossCheckParts) {
    this.#parts = parts
  }

  start(): void {
    this.#running = this.#run()
  }

  /** Resolves when no chunk is in doubt and the record says so, but for those that the disk does not let be read. */
  async done(): Promise<void> {
    await this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { inventory, log } = this.#parts
    const found = { right: 0, lost: 0, unreadable: 0 }
    for (const digest of inventory.doubtful()) {
      if (this.#stopping.signal.aborted) return
      try {
        found[(await inventory.get(digest)) === undefined ? 'lost' : 'right']++
      } catch (error) {
        found.unreadable++
        log.debug('chunk cannot be read to be checked', { error, digest })
      }
    }
    await inventory.settled()
    if (found.right + found.lost + found.unreadable > 0)
      log.info('chunks that were not synced when the host stopped are checked', found)
  }
}
