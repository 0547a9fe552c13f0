import type { Digest } from '../../../protocol/digest.ts'
import { BoundedMap } from '../../base/bounded-map.ts'
import type { Clock } from '../../base/clock.ts'
import type { Membership } from '../membership.ts'
import type { Location } from './location.ts'

/** Members of a swarm that this host connects to. A segment spreads among n hosts in about log n / log 12 steps. */
export const neighbours = 12
/** Members that a tracker is asked for: those of several segments of an image are put together. */
const wanted = 24
/** How long a member may take until it is connected (ms). */
const reachMs = 1_000
/** Nobody holds what is needed: the trackers are asked again after this, then twice as much, and so on (ms). */
const seekMs = { first: 1_000, last: 60_000 } as const
/** Members that are connected to when the trackers are asked again: some at a time. */
const soughtAtOnce = 4
/** Segments of which this host has neighbours. Beyond it the one that was joined first is let go. */
const maxSwarms = 1024
/** Members whose connections are kept for the sake of all swarms. Others are closed when they are not in use. */
const maxKept = 128
/** A swarm that nothing was fetched from for so long is let go (ms). */
const idleMs = 10 * 60_000

interface Swarm {
  /** Connections that are kept for it, by peer id. */
  kept: Map<string, Disposable>
  usedAtMs: number
  seekAtMs: number
  seekDelayMs: number
  /** How often the trackers have been asked again. */
  seeks: number
}

export interface SwarmsParts {
  location: Pick<Location, 'find'>
  membership: Pick<Membership, 'members' | 'reach' | 'keep'>
  clock: Clock
  /** Aborts when this host leaves. */
  signal: AbortSignal
}

/** The swarms of the segments that this host fetches: whom it is connected to for the sake of each. */
export class Swarms {
  readonly #parts: SwarmsParts
  readonly #swarms = new BoundedMap<Digest, Swarm>({ maxEntries: maxSwarms })
  /** For how many swarms each connection is kept. */
  readonly #uses = new Map<string, number>()
  #cancelSweep: (() => void) | undefined

  constructor(parts: SwarmsParts) {
    this.#parts = parts
  }

  get size(): number {
    return this.#swarms.size
  }

  /** Whether this host is in the swarm; it is in use then. */
  use(table: Digest): boolean {
    const swarm = this.#swarms.get(table)
    if (swarm === undefined) return false
    swarm.usedAtMs = this.#parts.clock.now()
    return true
  }

  /** Segments whose swarms this host is in. */
  joined(): Digest[] {
    return [...this.#swarms.keys()]
  }

  /**
   * Asks the trackers of the segments for members, and connects to some of them, so that each segment has about
   * {@link neighbours}. Members that are connected, and those that are in several of these swarms, come first.
   */
  async join(tables: readonly Digest[]): Promise<void> {
    const now = this.#parts.clock.now()
    for (const table of tables) {
      this.#add(table, {
        kept: new Map(),
        usedAtMs: now,
        seekAtMs: now + seekMs.first,
        seekDelayMs: seekMs.first,
        seeks: 0,
      })
    }
    const found = await this.#find(tables)
    await this.#connect(choose(found, this.#connected(), neighbours))
  }

  /** Nobody that is connected holds a chunk of the segment: asks the trackers again, if that was some time ago. */
  seek(table: Digest): void {
    const { clock } = this.#parts
    const swarm = this.#swarms.get(table)
    if (swarm === undefined || clock.now() < swarm.seekAtMs) return
    swarm.seekDelayMs = Math.min(swarm.seekDelayMs * 2, seekMs.last)
    swarm.seekAtMs = clock.now() + swarm.seekDelayMs
    swarm.seeks++
    void this.#seek(table, swarm).catch(() => undefined)
  }

  /** This host has all of the segment, or tracks it no longer. */
  leave(table: Digest): void {
    const swarm = this.#swarms.get(table)
    if (swarm === undefined) return
    for (const id of swarm.kept.keys()) this.#letGo(swarm, id)
    this.#swarms.delete(table)
  }

  stop(): void {
    this.#cancelSweep?.()
    for (const table of this.joined()) this.leave(table)
  }

  async #seek(table: Digest, swarm: Swarm): Promise<void> {
    const connected = this.#connected()
    for (const id of swarm.kept.keys()) if (!connected.has(id)) this.#letGo(swarm, id)
    const found = await this.#find([table], swarm.seeks)
    const others = [...found.get(table)!].filter((id) => !connected.has(id))
    // There is somebody new: he may lead to others soon.
    if (others.length > 0) swarm.seekDelayMs = seekMs.first
    await this.#connect(new Map(others.slice(0, soughtAtOnce).map((id) => [id, [table]])))
  }

  async #find(tables: readonly Digest[], order = 0): Promise<Map<Digest, string[]>> {
    const { location, signal } = this.#parts
    const found = tables.map(
      async (table) => [table, (await location.find(table, { wanted, order, signal })).members] as const,
    )
    return new Map(await Promise.all(found))
  }

  #connected(): Set<string> {
    return new Set(this.#parts.membership.members().map(({ id }) => id))
  }

  async #connect(chosen: ReadonlyMap<string, readonly Digest[]>): Promise<void> {
    const reached = [...chosen].map(async ([id, tables]) => {
      if (!(await this.#reach(id))) return
      for (const table of tables) this.#keep(table, id)
    })
    await Promise.all(reached)
  }

  async #reach(id: string): Promise<boolean> {
    const { membership, clock, signal } = this.#parts
    const late = new AbortController()
    const cancel = clock.after(reachMs, () => late.abort())
    try {
      await membership.reach(id, { signal: AbortSignal.any([signal, late.signal]) })
      return true
    } catch {
      return false
    } finally {
      cancel()
    }
  }

  #keep(table: Digest, id: string): void {
    const swarm = this.#swarms.get(table)
    if (swarm === undefined || swarm.kept.has(id) || swarm.kept.size >= 2 * neighbours) return
    const uses = this.#uses.get(id) ?? 0
    if (uses === 0 && this.#uses.size >= maxKept) return
    this.#uses.set(id, uses + 1)
    swarm.kept.set(id, this.#parts.membership.keep(id))
  }

  #letGo(swarm: Swarm, id: string): void {
    swarm.kept.get(id)![Symbol.dispose]()
    swarm.kept.delete(id)
    const uses = this.#uses.get(id)! - 1
    if (uses > 0) this.#uses.set(id, uses)
    else this.#uses.delete(id)
  }

  #add(table: Digest, swarm: Swarm): void {
    this.leave(table)
    if (this.#swarms.size >= maxSwarms) {
      const [oldest] = this.#swarms.keys()
      this.leave(oldest!)
    }
    this.#swarms.set(table, swarm)
    this.#cancelSweep ??= this.#parts.clock.after(idleMs, () => this.#sweep())
  }

  #sweep(): void {
    this.#cancelSweep = undefined
    const idleSinceMs = this.#parts.clock.now() - idleMs
    for (const table of this.joined()) if (this.#swarms.get(table)!.usedAtMs <= idleSinceMs) this.leave(table)
    if (this.#swarms.size > 0) this.#cancelSweep = this.#parts.clock.after(idleMs, () => this.#sweep())
  }
}

/** Members that are named first for a segment hold much of it: so many of them are chosen in any case. */
const surelyChosen = 2

/**
 * Few members, so that each segment has `count` of those that were found for it, or all.
 * @param found the members for each segment, those that hold much first
 * @returns the members, with the segments that they were found for
 */
export function choose(
  found: ReadonlyMap<Digest, readonly string[]>,
  connected: ReadonlySet<string>,
  count: number,
): Map<string, Digest[]> {
  const tablesOf = new Map<string, Digest[]>()
  for (const [table, ids] of found) {
    for (const id of ids) {
      const tables = tablesOf.get(id)
      if (tables === undefined) tablesOf.set(id, [table])
      else tables.push(table)
    }
  }
  const ranked = [...tablesOf].toSorted(
    ([a, tablesOfA], [b, tablesOfB]) =>
      Number(connected.has(b)) - Number(connected.has(a)) || tablesOfB.length - tablesOfA.length,
  )
  const sure = new Set([...found.values()].flatMap((ids) => ids.slice(0, surelyChosen)))
  const missing = new Map([...found.keys()].map((table) => [table, count]))
  const chosen = new Map<string, Digest[]>()
  for (const [id, tables] of [...ranked.filter(([id]) => sure.has(id)), ...ranked.filter(([id]) => !sure.has(id))]) {
    if (!sure.has(id) && !tables.some((table) => missing.get(table)! > 0)) continue
    for (const table of tables) missing.set(table, missing.get(table)! - 1)
    chosen.set(id, tables)
  }
  return chosen
}
