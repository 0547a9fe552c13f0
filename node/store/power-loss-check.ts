import { setTimeout as sleep } from 'node:timers/promises'
import type { Digest } from '../../protocol/digest.ts'
import type { Log } from '../base/log.ts'
import type { Inventory } from './inventory.ts'

export interface PowerLossCheckParts {
  inventory: Pick<Inventory, 'doubtful' | 'examine' | 'get' | 'settled'>
  log: Log
}

/**
 * Chunks whose times are looked at in one go: the process does nothing else for 0.4 ms, or 4 where the disk has to be asked
 * for each.
 */
const examinedAtOnce = 64
/** The pause after it (ms): half of the time is for others. A million chunks take a minute. */
const pauseMs = 1

/**
 * Looks at the times of all chunks in doubt, which ends the doubt for most. Then it hashes the others, one after the
 * other. Those that are right count as here from then on; the rest is discarded. A chunk that is read before its turn
 * is hashed then.
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
    if (inventory.doubtful().next().done === true) return
    await this.#examine()
    const found = { right: 0, lost: 0, unreadable: 0 }
    for (const digest of inventory.doubtful()) {
      if (this.#stopping.signal.aborted) return
      try {
        found[(await inventory.get(digest)) === undefined ? 'lost' : 'right']++
      } catch (error) {
        found.unreadable++
        log.debug('chunk cannot be read for its check', { error, digest })
      }
    }
    await inventory.settled()
    log.info('chunks that were not synced when the host stopped are checked', found)
  }

  async #examine(): Promise<void> {
    const { inventory } = this.#parts
    let some: Digest[] = []
    for (const digest of inventory.doubtful()) {
      some.push(digest)
      if (some.length < examinedAtOnce) continue
      inventory.examine(some)
      some = []
      await sleep(pauseMs)
      if (this.#stopping.signal.aborted) return
    }
    inventory.examine(some)
  }
}
