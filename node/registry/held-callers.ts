import { ExpiringMap } from '../base/expiring-map.ts'
import { Caller } from './caller.ts'
import type { CallerMemory } from './caller-memory.ts'
import { callerOf, repositoryOf, type Reference } from './reference.ts'

/** A caller whom the registry has refused is passed over for so long (ms): each read would cost a request in vain. */
const refusedMs = 30_000
/** Such callers that are remembered. */
const maxRefused = 1024
/** Callers that one read is tried for. */
const maxTried = 3

/**
 * Callers whose credentials read what comes after they have shown that they may: as long as a mount or a request of theirs
 * stands. They are in memory only, at most one for each of these. Those of mounts are in the memory that the next daemon gets, too.
 */
export class HeldCallers {
  /** By holder, the oldest first. */
  readonly #held = new Map<string | symbol, { repository: string; caller: Caller }>()
  readonly #refused: ExpiringMap<string>
  readonly #memory: Pick<CallerMemory, 'load' | 'save'> | undefined

  /** @param parts `memory`: what the daemon before has left, and what the next one gets; `now`: the clock (ms) */
  constructor({
    now = () => performance.now(),
    memory,
  }: { now?: () => number; memory?: Pick<CallerMemory, 'load' | 'save'> | undefined } = {}) {
    this.#memory = memory
    for (const { holder, repository, registry, credentials } of memory?.load() ?? [])
      this.#held.set(holder, { repository, caller: new Caller(registry, credentials) })
    this.#refused = new ExpiringMap({ maxEntries: maxRefused, now })
  }

  /** @param holder names what stands: a mount by its id, or a request. @param reference with its caller; without one nothing is held */
  hold(holder: string | symbol, reference: Reference): void {
    const caller = callerOf(reference)
    if (caller === undefined) return
    this.#held.set(holder, { repository: repositoryOf(reference), caller })
    if (typeof holder === 'string') this.#save()
  }

  /** Whether credentials are held for the mount. */
  has(holder: string): boolean {
    return this.#held.has(holder)
  }

  /** Forgets mounts that have ended while nobody looked. @param mounts ids of those that stand */
  keepOnly(mounts: readonly string[]): void {
    const standing = new Set<string | symbol>(mounts)
    for (const holder of this.#held.keys())
      if (typeof holder === 'string' && !standing.has(holder)) this.#held.delete(holder)
    this.#save()
  }

  release(holder: string | symbol): void {
    if (this.#held.delete(holder) && typeof holder === 'string') this.#save()
  }

  #save(): void {
    this.#memory?.save(
      [...this.#held].flatMap(([holder, { repository, caller }]) => {
        const given = caller.handOver()
        return typeof holder === 'string' && given !== undefined ? [{ holder, repository, ...given }] : []
      }),
    )
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
