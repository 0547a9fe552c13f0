import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { PlaceRequest } from '../../protocol/messages/seed.ts'
import {
  isCopy,
  maxSeedTargets,
  type SeedExtent,
  type SeedJob,
  type SeedProgress,
  type SeedTarget,
} from '../../protocol/seed-job.ts'
import { clip } from '../base/hidden-characters.ts'
import type { Log } from '../base/log.ts'
import type { RegionHosts } from './region-hosts.ts'

/**
 * Hosts of a job that work on it at once, each of them a stream: as they start together they share one copy from the registry,
 * and pass on to each other what they have. More would have each wait longer, and none be whole sooner.
 */
const maxPlacements = 32
/** Hosts that are asked at once whether they still hold their copy: not held up by those that work. */
const maxChecks = 32
/** A target that has failed is left alone so long, twice as long each time (ms). */
const retry = { firstMs: 5_000, mostMs: 5 * 60_000 } as const
/** A host that holds its copy is asked so often whether it still does: until the job is placed, and after (ms). */
const checkMs = { placing: 5_000, placed: 60_000 } as const
/** The length at which the name of a host is cut off (characters), so that a job of the most targets fits into its record. */
const maxNameLength = 64
/** A copy counts for the operator who waits if its host has said so within this (ms). */
const freshMs = 15_000

/** Has a host make an image whole and pin it. */
export type Place = (
  peer: string,
  request: PlaceRequest,
  options: { signal: AbortSignal; onProgress: (progress: SeedProgress) => void },
) => Promise<SeedProgress>

export interface CoordinatorParts {
  hosts: Pick<RegionHosts, 'alive' | 'byHoldings'>
  place: Place
  /** Peer ids of the hosts that hold the image for other jobs of one order: they come first. */
  companions?: () => readonly string[]
  /** Chunk tables of the rootfs; none where this host does not have its manifest. */
  tables: readonly ChunkTable[]
  /** Milliseconds since 1970. */
  today: () => number
  log: Log
}

/** The coordinator's own notes about a target, which it does not tell others. */
interface Work {
  abort: AbortController | undefined
  /** The time at which the target is asked next. */
  dueAtMs: number
  /** The last time that it said it has the whole image. */
  confirmedAtMs: number
  failures: number
}

/**
 * Works on one job, on the host that coordinates it: it sees to it again and again that the hosts that the job is for hold
 * the image, as they say themselves, and has others take the place of those that are gone or fail.
 */
export class Coordinator {
  readonly #parts: CoordinatorParts
  readonly #targets = new Map<string, SeedTarget>()
  readonly #work = new Map<string, Work>()
  #job: SeedJob
  #hasChanged = false
  #isPlaced = false

  constructor(parts: CoordinatorParts, job: SeedJob) {
    this.#parts = parts
    this.#job = job
    for (const target of job.targets) this.#targets.set(target.peer, target)
  }

  get targets(): SeedTarget[] {
    return [...this.#targets.values()]
  }

  /** Whether targets have changed since this was last asked. */
  takeChange(): boolean {
    const hasChanged = this.#hasChanged
    this.#hasChanged = false
    return hasChanged
  }

  /** Does what is due now. Called about once a second, with the newest record of the job. */
  tick(job: SeedJob): void {
    this.#job = job
    const alive = this.#parts.hosts.alive()
    this.#noteGone(alive)
    const wanted = this.#wanted(alive)
    for (const [peer, extent] of wanted) this.#aim(peer, extent, alive.get(peer)!.name)
    this.#forget(wanted, alive)
    this.#startDue()
    this.#isPlaced = this.isPlaced()
  }

  /** Whether the job has all that it is for, as its hosts have confirmed just now. */
  isPlaced(): boolean {
    const { places, extent } = this.#job
    const { hosts, today } = this.#parts
    const isSure = ({ peer }: SeedTarget): boolean =>
      today() - (this.#work.get(peer)?.confirmedAtMs ?? -Infinity) <= freshMs || this.#isPlaced
    const held = this.targets.filter((target) => isCopy(target) && isSure(target))
    const full = new Set(held.filter((target) => target.extent === 'full').map(({ peer }) => peer))
    const any = new Set(held.map(({ peer }) => peer))
    const alive = [...hosts.alive().keys()]
    if (extent === 'hot' && !alive.every((peer) => any.has(peer))) return false
    if ('copies' in places) return full.size >= places.copies
    return ('on' in places ? places.on : alive).every((peer) => full.has(peer))
  }

  /** Whether nothing is under way that could make the job placed, as the region is now. */
  isStuck(): boolean {
    const alive = this.#parts.hosts.alive()
    const full = [...this.#wanted(alive).values()].filter((extent) => extent === 'full').length
    const { places } = this.#job
    const need = 'copies' in places ? places.copies : 'on' in places ? places.on.length : alive.size
    return full < need
  }

  /** Ends what runs; the targets keep what they have. */
  stop(): void {
    for (const { abort } of this.#work.values())
      abort?.abort(new P2pfsError('closed', 'the job is not coordinated here'))
    this.#work.clear()
  }

  #noteGone(alive: ReadonlyMap<string, unknown>): void {
    for (const target of this.targets) {
      if (alive.has(target.peer) || target.state === 'gone') continue
      this.#workOf(target.peer).abort?.abort(new P2pfsError('unavailable', 'the target is gone'))
      this.#work.delete(target.peer)
      this.#set({ ...withoutCode(target), state: 'gone' })
    }
  }

  /** The hosts that are to hold it, as the region is now, and how much of it. */
  #wanted(alive: ReadonlyMap<string, unknown>): Map<string, SeedExtent> {
    const { id, places, extent, group = id } = this.#job
    const { hosts, companions } = this.#parts
    const nowMs = this.#parts.today()
    const isUsable = (peer: string): boolean => {
      const work = this.#work.get(peer)
      return alive.has(peer) && !(work !== undefined && work.failures > 0 && work.dueAtMs > nowMs)
    }
    const wanted = new Map<string, SeedExtent>()
    if ('on' in places) for (const peer of places.on) if (isUsable(peer)) wanted.set(peer, 'full')
    if ('all' in places) for (const peer of alive.keys()) if (isUsable(peer)) wanted.set(peer, 'full')
    if ('copies' in places) {
      for (const { peer, extent, state } of this.targets)
        if (extent === 'full' && (state === 'placing' || state === 'held') && isUsable(peer)) wanted.set(peer, 'full')
      if (wanted.size < places.copies)
        for (const peer of [...(companions?.() ?? []), ...hosts.byHoldings(group, this.#parts.tables)])
          if (wanted.size < places.copies && isUsable(peer)) wanted.set(peer, 'full')
    }
    if (extent === 'hot')
      for (const peer of alive.keys()) if (!wanted.has(peer) && isUsable(peer)) wanted.set(peer, 'hot')
    return wanted
  }

  /** Makes the host a target, or more of one. */
  #aim(peer: string, extent: SeedExtent, name: string): void {
    const target = this.#targets.get(peer)
    if (target !== undefined && target.state !== 'gone' && target.state !== 'failed' && target.extent === extent) return
    if (target === undefined && this.#targets.size >= maxSeedTargets) return
    const before = target?.extent === extent ? target : { held: 0, verified: 0, total: 0 }
    const { held, verified, total } = before
    this.#set({ peer, name: clip(name, maxNameLength), extent, state: 'placing', held, verified, total })
    this.#workOf(peer).dueAtMs = 0
  }

  /** A host that was gone and is back is no target any more, unless it holds a copy: that one is asked for. */
  #forget(wanted: ReadonlyMap<string, SeedExtent>, alive: ReadonlyMap<string, { name: string }>): void {
    for (const target of this.targets) {
      if (target.state !== 'gone' || wanted.has(target.peer) || !alive.has(target.peer)) continue
      if (isCopy({ ...target, state: 'held' })) {
        this.#set({ ...target, state: 'placing' })
        this.#workOf(target.peer).dueAtMs = 0
      } else {
        this.#targets.delete(target.peer)
        this.#hasChanged = true
      }
    }
  }

  #startDue(): void {
    const nowMs = this.#parts.today()
    const running = this.targets.filter(({ peer }) => this.#work.get(peer)?.abort !== undefined)
    let placing = running.filter(({ state }) => state === 'placing').length
    let checking = running.length - placing
    for (const target of this.targets) {
      const work = this.#workOf(target.peer)
      const isDue = work.abort === undefined && work.dueAtMs <= nowMs
      if (!isDue || target.state === 'gone' || target.state === 'failed') continue
      if (target.state === 'placing' ? placing++ >= maxPlacements : checking++ >= maxChecks) continue
      void this.#run(target, work)
    }
  }

  async #run({ peer, extent }: SeedTarget, work: Work): Promise<void> {
    const abort = new AbortController()
    work.abort = abort
    const { reference, platform, format, manifestDigest, rootfsDigest, id: job, endsAtMs: untilMs, demand } = this.#job
    const request = {
      reference,
      platform,
      format,
      manifestDigest,
      rootfsDigest,
      job,
      extent,
      untilMs,
      ...(demand && { demand }),
    }
    const { place, today, log } = this.#parts
    const isCurrent = (): boolean => this.#work.get(peer) === work && this.#targets.has(peer)
    const onProgress = (progress: SeedProgress): void => {
      // A host that waits for its turn there knows nothing yet.
      if (progress.total > 0 && isCurrent()) this.#note(peer, progress)
    }
    try {
      const progress = await place(peer, request, { signal: abort.signal, onProgress })
      if (!isCurrent()) return
      this.#note(peer, progress)
      const { held, verified, total } = progress
      if (held !== total || verified !== total || total === 0)
        throw new P2pfsError('invalid', 'the target says that it is done, and is not')
      this.#set({ ...withoutCode(this.#targets.get(peer)!), state: 'held' })
      Object.assign(work, { failures: 0, confirmedAtMs: today(), dueAtMs: today() + this.#checkMs() })
    } catch (error) {
      if (!isCurrent() || abort.signal.aborted) return
      work.failures++
      work.dueAtMs = today() + Math.min(retry.mostMs, retry.firstMs * 2 ** (work.failures - 1))
      const code = isP2pfsError(error) ? error.code : 'unavailable'
      this.#set({ ...this.#targets.get(peer)!, state: 'failed', code })
      log.info('host does not hold the image of a seed yet; it is asked again later', { error, peer, job })
    } finally {
      work.abort = undefined
    }
  }

  /** A host that is checked and lacks something is placing again. */
  #note(peer: string, { held, verified, total }: SeedProgress): void {
    const target = this.#targets.get(peer)!
    const state = held < total || verified < total ? 'placing' : target.state
    if (target.held === held && target.verified === verified && target.total === total && target.state === state) return
    this.#set({ ...target, held, verified, total, state })
  }

  #checkMs(): number {
    return this.#isPlaced ? checkMs.placed : checkMs.placing
  }

  #set(target: SeedTarget): void {
    this.#targets.set(target.peer, target)
    this.#hasChanged = true
  }

  #workOf(peer: string): Work {
    const work = this.#work.get(peer) ?? { abort: undefined, dueAtMs: 0, confirmedAtMs: -Infinity, failures: 0 }
    this.#work.set(peer, work)
    return work
  }
}

function withoutCode({ code: _code, ...target }: SeedTarget): SeedTarget {
  return target
}
