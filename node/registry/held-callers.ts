import { ExpiringMap } from '../base/expiring-map.ts'
import type { Caller } from './caller.ts'
import { callerOf, repositoryOf, type Reference } from './reference.ts'

/** A caller whom the registry has refused is passed over for so long (ms): each read would cost a request in vain. */
const refusedMs = 30_000
/** Such callers that are remembered. */
const maxRefused = 1024
/** Callers that one read is tried for. */
const maxTried = 3

/**
 * Callers whose credentials read what comes after they have shown that they may: as long as a mount or a request of theirs
 * stands. They are in memory only, at most one for each of these.
 */
export class HeldCallers {
  /** By holder, the oldest first. */
  readonly #held = new Map<string | symbol, { repository: string; caller: Caller }>()
  readonly #refused: ExpiringMap<string>

  constructor({ now = () => performance.now() }: { now?: () => number } = {}) {
    this.#refused = new ExpiringMap({ maxEntries: maxRefused, now })
  }

  /** @param holder names what stands: a mount by its id, or a request. @param reference with its caller; without one nothing is held */
  hold(holder: string | symbol, reference: Reference): void {
    const caller = callerOf(reference)
    if (caller !== undefined) this.#held.set(holder, { repository: repositoryOf(reference), caller })
  }

  release(holder: string | symbol): void {
    this.#held.delete(holder)
  }

  /** Holds the caller of the reference while the task runs. */
  async during<T>(reference: Reference, task: () => Promise<T>): Promise<T> {
    const holder = Symbol('request')
    this.hold(holder, reference)
    try {
      return await task()
    } finally {
      this.release(holder)
    }
  }

  /**
   * In whose name the content of an image is read: the callers that are held for its repository, the newest first, and last
   * this host. One that has a caller of its own is read in his name alone.
   */
  readersOf(reference: Reference): readonly [Reference, ...Reference[]] {
    if (reference.kind !== 'registry' || reference.caller !== undefined || this.#held.size === 0) return [reference]
    const repository = repositoryOf(reference)
    const callers = new Map<string, Caller>()
    for (const held of [...this.#held.values()].toReversed())
      if (held.repository === repository && !this.#refused.has(`${held.caller.key} ${repository}`))
        callers.set(held.caller.key, held.caller)
    const [first = reference, ...more] = [...callers.values()]
      .slice(0, maxTried)
      .map((caller): Reference => ({ ...reference, caller }))
    return first === reference ? [reference] : [first, ...more, reference]
  }

  /** The registry has refused to let the caller of the reference read. */
  refused(reference: Reference): void {
    const caller = callerOf(reference)
    if (caller !== undefined) this.#refused.set(`${caller.key} ${repositoryOf(reference)}`, true, refusedMs)
  }
}
