import { P2pfsError } from '../../protocol/errors.ts'
import type { PlaceRequest } from '../../protocol/messages/seed.ts'
import {
  maxSeedKeepers,
  newerJob,
  seedJobId,
  type MountDemand,
  type SeedImage,
  type SeedJob,
  type SeedPlaces,
  type SeedProgress,
  type TargetState,
} from '../../protocol/seed-job.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import { orAbort } from '../base/single-flight.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { SeedClient } from '../peers/seed/client.ts'
import type { Catalog } from '../store/catalog.ts'
import { Coordinator } from './coordinator.ts'
import type { KeptJobs } from './kept-jobs.ts'
import type { Pins } from './pins.ts'
import type { Placements } from './placements.ts'
import type { RegionHosts } from './region-hosts.ts'
import { seedLimits, type SeedLimits } from './seed-limits.ts'

/** How often jobs are looked at, and at most told to those that keep them (ms). */
const tickMs = 1_000
/** Hosts that keep a job: with three, two may be lost at once. */
const keepersOfJob = 3
/** How long the host that takes a job waits for others to keep it too (ms). They are told again every second. */
const keepWaitMs = 2_000
/** Members that are asked for their jobs at once, and jobs of the region that are listed. */
const listed = { askedAtOnce: 32, jobs: 1024 } as const

export interface SeedJobsParts {
  hosts: RegionHosts
  kept: KeptJobs
  pins: Pins
  placements: Pick<Placements, 'place'>
  client: Pick<SeedClient, 'place' | 'keep' | 'release' | 'jobs'>
  catalog: Pick<Catalog, 'rootfs'>
  /** Resolves when this host has met its region, as far as it can tell. */
  whenRegionKnown: (options: { signal: AbortSignal }) => Promise<void>
  log: Log
  clock?: Clock
  /** Milliseconds since 1970. */
  today?: () => number
}

/** The order of an operator. */
export interface SeedOrder {
  image: SeedImage
  extent: SeedJob['extent']
  places: SeedPlaces
  /** The time at which it begins (ms since 1970); 0: at once. */
  atMs: number
  /** How long the image is kept from then on (ms). */
  ttlMs: number
  /** Why, where no operator orders it. */
  demand?: MountDemand
  /** See {@link SeedJob.group}. */
  group?: string
}

export interface WaitForJob {
  signal: AbortSignal
  /** How long at most, from the job's begin (ms). */
  timeoutMs: number
  /** How long the region may lack hosts for it (ms). */
  stuckMs: number
  onChange: (job: SeedJob) => void
}

/**
 * The seed jobs of the region, as this host takes part in them. Three hosts keep each job: the one that took it, and the
 * next two in the order of its id. The first of them that is awake coordinates it; it tells the others what it has got to.
 * So a job goes on when its hosts are lost or start anew. Two that both think that they are the first do the same work,
 * and do no harm.
 */
export class SeedJobs implements AsyncDisposable {
  readonly #parts: SeedJobsParts
  readonly #limits: Pick<SeedLimits, 'ttlMs' | 'cancelledMs'>
  readonly #clock: Clock
  readonly #today: () => number
  readonly #stopping = new AbortController()
  readonly #coordinators = new Map<string, Coordinator>()
  /** Jobs that are being told to a keeper, as `id peer`: the next that is told is the newest then. */
  readonly #telling = new Set<string>()
  /** Jobs that this host begins to coordinate. */
  readonly #takingUp = new Set<string>()
  /** Cancelled jobs whose pins this host has ended. */
  readonly #released = new Set<string>()
  readonly #ticked = new Set<() => void>()
  #cancelTick: (() => void) | undefined
  #isTicking = false
  #running: Promise<void> = Promise.resolve()

  constructor(parts: SeedJobsParts, limits: Pick<SeedLimits, 'ttlMs' | 'cancelledMs'> = seedLimits) {
    this.#parts = parts
    this.#limits = limits
    this.#clock = parts.clock ?? systemClock
    this.#today = parts.today ?? Date.now
  }

  /** Takes up the jobs of the process before, when this host has met its region. */
  start(): void {
    const { signal } = this.#stopping
    this.#running = this.#parts.whenRegionKnown({ signal }).then(
      () => this.#tickLater(0),
      () => undefined,
    )
  }

  /** Ends the work on all jobs; they stay, for the next process and for their other keepers. */
  async stop(): Promise<void> {
    this.#stopping.abort(new P2pfsError('closed', 'the daemon is stopping'))
    this.#cancelTick?.()
    for (const coordinator of this.#coordinators.values()) coordinator.stop()
    await this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** The time at which an order that is taken now ends (ms since 1970). @throws invalid where that is too late */
  endOf({ atMs, ttlMs }: Pick<SeedOrder, 'atMs' | 'ttlMs'>): number {
    const nowMs = this.#today()
    const endsAtMs = Math.max(atMs, nowMs) + ttlMs
    const days = this.#limits.ttlMs / 86_400_000
    if (endsAtMs > nowMs + this.#limits.ttlMs)
      throw new P2pfsError(
        'invalid',
        `a seed ends within ${days} days from now; choose a shorter --ttl, or an earlier --at`,
      )
    return endsAtMs
  }

  /**
   * Takes an order. It survives the restart of this host from then on, and the loss of this host where members answer. The
   * same order again makes its job last longer.
   * @throws invalid for a time that is too long; busy where there are too many jobs; what the catalog throws
   */
  async accept({ image, extent, places, atMs, ttlMs, demand, group }: SeedOrder): Promise<SeedJob> {
    const { hosts, kept } = this.#parts
    const nowMs = this.#today()
    const endsAtMs = this.endOf({ atMs, ttlMs })
    const order = { ...image, extent, places, atMs, ...(demand && { demand }) }
    const id = seedJobId(order)
    const { own } = hosts
    const before = kept.get(id)
    const job: SeedJob = {
      ...order,
      id,
      createdAtMs: nowMs,
      endsAtMs,
      acceptedBy: own,
      keepers: this.#recruit({ id, keepers: [own], ...(group !== undefined && { group }) }),
      revision: (before?.revision ?? 0) + 1,
      cancelled: false,
      targets: before?.targets ?? [],
      ...(group !== undefined && { group }),
    }
    await kept.put(job, { sync: true })
    this.#released.delete(id)
    await this.#tellOrWait(job)
    this.#tickLater(0)
    return kept.get(id) ?? job
  }

  /**
   * Waits for a job that this host coordinates.
   * @returns the job, and whether all that it is for is held and verified; false where the time is over, where the region
   * lacks the hosts for it, or where somebody has cancelled it
   */
  async wait(
    id: string,
    { signal, timeoutMs, stuckMs, onChange }: WaitForJob,
  ): Promise<{ job: SeedJob; isPlaced: boolean }> {
    let job = this.#mustHave(id)
    const deadlineMs = Math.max(job.atMs, this.#today()) + timeoutMs
    let stuckSinceMs: number | undefined
    for (;;) {
      await this.#nextTick(signal)
      job = this.#parts.kept.get(id) ?? job
      const coordinator = this.#coordinators.get(id)
      if (coordinator !== undefined) job = { ...job, targets: coordinator.targets }
      onChange(job)
      if (coordinator?.isPlaced() === true) return { job, isPlaced: true }
      const nowMs = this.#today()
      const hasBegun = job.atMs <= nowMs
      stuckSinceMs = hasBegun && coordinator?.isStuck() !== false ? (stuckSinceMs ?? nowMs) : undefined
      const isStuck = stuckSinceMs !== undefined && nowMs - stuckSinceMs >= stuckMs
      if (isStuck || nowMs >= deadlineMs || job.cancelled || job.endsAtMs <= nowMs) return { job, isPlaced: false }
    }
  }

  /** The jobs of the region, as far as the members answer. */
  async list({ signal }: { signal: AbortSignal }): Promise<SeedJob[]> {
    const { hosts, kept, client } = this.#parts
    const jobs = new Map<string, SeedJob>()
    const learn = (job: SeedJob): void => {
      const known = jobs.get(job.id)
      if (known === undefined && jobs.size >= listed.jobs) return
      jobs.set(job.id, known === undefined ? job : newerJob(known, job))
    }
    for (const job of kept.list())
      learn({ ...job, ...(this.#coordinators.has(job.id) && { targets: this.#coordinators.get(job.id)!.targets }) })
    const peers = [...hosts.alive().keys()].filter((peer) => peer !== hosts.own).values()
    const asker = async (): Promise<void> => {
      for (const peer of peers) {
        const told = await client.jobs(peer, { signal }).catch(() => [])
        signal.throwIfAborted()
        // Its id says what is ordered; whoever tells it.
        for (const job of told) if (job.id === seedJobId(job)) learn(job)
      }
    }
    await Promise.all(Array.from({ length: listed.askedAtOnce }, asker))
    const nowMs = this.#today()
    return [...jobs.values()].filter(({ endsAtMs }) => endsAtMs > nowMs)
  }

  /** Ends a job and the pins of its image, wherever it is kept. @throws missing where nobody knows it */
  async cancel(id: string, { signal }: { signal: AbortSignal }): Promise<SeedJob> {
    const { kept } = this.#parts
    const found = kept.get(id) ?? (await this.list({ signal })).find((job) => job.id === id)
    if (found === undefined) throw new P2pfsError('missing', `there is no seed ${id}; p2pfs seeds lists all`)
    const endsAtMs = Math.min(found.endsAtMs, this.#today() + this.#limits.cancelledMs)
    const job = { ...found, endsAtMs, cancelled: true, revision: found.revision + 1 }
    if (kept.get(id) !== undefined) await kept.put(job, { sync: true })
    await orAbort(this.#tell(job), signal)
    this.#tickLater(0)
    return job
  }

  /** Keeps a job for a member. @throws as {@link KeptJobs.keep} */
  async keptJob(job: SeedJob, peer: string): Promise<SeedJob> {
    return await this.#parts.kept.keep(job, peer)
  }

  #tickLater(ms: number): void {
    this.#cancelTick?.()
    if (this.#stopping.signal.aborted) return
    this.#cancelTick = this.#clock.after(ms, () => {
      this.#cancelTick = undefined
      // The tick that runs is followed by another one.
      if (this.#isTicking) return
      this.#isTicking = true
      this.#running = this.#tick()
        .catch((error: unknown) =>
          this.#parts.log.error('seed jobs cannot be coordinated now; it is tried again', { error }),
        )
        .then(() => {
          this.#isTicking = false
          for (const wake of this.#ticked) wake()
          this.#tickLater(tickMs)
        })
    })
  }

  async #tick(): Promise<void> {
    const { hosts, kept, pins } = this.#parts
    await kept.expire()
    await pins.expire(this.#today())
    for (const [id, coordinator] of this.#coordinators) {
      if (kept.get(id) !== undefined) continue
      coordinator.stop()
      this.#coordinators.delete(id)
    }
    for (const id of this.#released) if (kept.get(id) === undefined) this.#released.delete(id)
    for (const { id } of kept.list()) {
      // Others may have changed it while an earlier one was worked on.
      const job = kept.get(id)
      if (job === undefined) continue
      const awake = new Set(hosts.byResponsibility(job.id))
      const isFirst = job.keepers.find((keeper) => awake.has(keeper)) === hosts.own
      if (!isFirst || job.cancelled) {
        this.#coordinators.get(job.id)?.stop()
        this.#coordinators.delete(job.id)
      }
      if (!isFirst) continue
      if (job.cancelled) this.#release(job)
      else if (job.atMs <= this.#today()) await this.#coordinate(job)
    }
  }

  async #coordinate(job: SeedJob): Promise<void> {
    const coordinator = this.#coordinators.get(job.id)
    if (coordinator === undefined) return void this.#takeUp(job)
    coordinator.tick(job)
    const keepers = this.#recruit(job)
    const hasNewKeepers = String(keepers) !== String(job.keepers)
    if (!coordinator.takeChange() && !hasNewKeepers) return
    const changed = { ...job, keepers, targets: coordinator.targets, revision: job.revision + 1 }
    await this.#parts.kept.put(changed)
    void this.#tell(changed)
  }

  /** Begins to coordinate a job: from the newest record of it that its keepers have, and with the next tick. */
  async #takeUp(job: SeedJob): Promise<void> {
    const { hosts, kept, catalog, log } = this.#parts
    if (this.#takingUp.has(job.id)) return
    this.#takingUp.add(job.id)
    try {
      await this.#tellOrWait(job)
      const manifest = await catalog.rootfs(job.rootfsDigest)
      const tables = manifest === undefined ? [] : tablesOf(manifest)
      const newest = kept.get(job.id)
      if (newest === undefined || this.#stopping.signal.aborted) return
      const companions = (): string[] => this.#companionsOf(newest)
      const parts = { hosts, place: this.#placeFor(newest), companions, tables, today: this.#today, log }
      this.#coordinators.set(job.id, new Coordinator(parts, newest))
    } catch (error) {
      log.error('seed job cannot be taken over; it is tried again', { error, job: job.id })
    } finally {
      this.#takingUp.delete(job.id)
    }
  }

  /** Peer ids of the hosts that hold, or are to hold, the image in the other formats of one order. */
  #companionsOf({ id, group }: SeedJob): string[] {
    if (group === undefined) return []
    return this.#parts.kept
      .list()
      .filter((job) => job.group === group && job.id !== id && !job.cancelled)
      .flatMap(({ targets }) => targets.filter(({ extent, state }) => extent === 'full' && isWanted[state]))
      .map(({ peer }) => peer)
  }

  /** This host takes its operator's job as its own, and another's as a member's. */
  #placeFor({ acceptedBy }: SeedJob) {
    const { hosts, placements, client } = this.#parts
    return async (
      peer: string,
      request: PlaceRequest,
      options: { signal: AbortSignal; onProgress: (progress: SeedProgress) => void },
    ): Promise<SeedProgress> =>
      peer === hosts.own
        ? await placements.place(request, { ...options, peer: acceptedBy })
        : await client.place(peer, request, options)
  }

  /**
   * The hosts that are to keep the job: the one that took it, which goes on with it when it is back, then those that have
   * it and are awake, then the next in the order of its id.
   */
  #recruit({ id, keepers, group = id }: Pick<SeedJob, 'id' | 'keepers' | 'group'>): string[] {
    const awake = this.#parts.hosts.byResponsibility(group)
    const [first] = keepers
    const stay = keepers.filter((keeper) => keeper === first || awake.includes(keeper))
    for (const host of awake) {
      if (stay.filter((keeper) => awake.includes(keeper)).length >= keepersOfJob || stay.length >= maxSeedKeepers) break
      if (!stay.includes(host)) stay.push(host)
    }
    return stay
  }

  /** As {@link #tell}, for at most two seconds. */
  async #tellOrWait(job: SeedJob): Promise<void> {
    const late = Promise.withResolvers<void>()
    const cancel = this.#clock.after(keepWaitMs, late.resolve)
    await Promise.race([this.#tell(job), late.promise])
    cancel()
  }

  /** Sends the job's newest record to its other keepers. Newer records of theirs are taken over. */
  async #tell(job: SeedJob): Promise<void> {
    const { hosts, kept, client, log } = this.#parts
    const alive = hosts.alive()
    const others = job.keepers.filter((keeper) => keeper !== hosts.own && alive.has(keeper))
    const telling = others.map(async (keeper) => {
      const key = `${job.id} ${keeper}`
      if (this.#telling.has(key)) return
      this.#telling.add(key)
      try {
        const theirs = await client.keep(keeper, job, { signal: this.#stopping.signal })
        const ours = kept.get(job.id)
        if (ours !== undefined && newerJob(ours, theirs) === theirs) await kept.keep(theirs, keeper)
      } catch (error) {
        if (!this.#stopping.signal.aborted)
          log.debug('member does not keep a seed job', { error, peer: keeper, job: job.id })
      } finally {
        this.#telling.delete(key)
      }
    })
    await Promise.all(telling)
  }

  /** Ends the pins of a cancelled job, once, on all hosts that it was placed on. */
  #release({ id, acceptedBy, targets }: SeedJob): void {
    const { hosts, pins, client, log } = this.#parts
    if (this.#released.has(id)) return
    this.#released.add(id)
    const alive = hosts.alive()
    for (const { peer } of targets) {
      if (!alive.has(peer)) continue
      const released =
        peer === hosts.own ? pins.release(id, acceptedBy) : client.release(peer, id, { signal: this.#stopping.signal })
      released.catch((error: unknown) => log.debug('pins of a cancelled seed stay until they end', { error, peer }))
    }
  }

  #mustHave(id: string): SeedJob {
    const job = this.#parts.kept.get(id)
    if (job === undefined) throw new P2pfsError('missing', `there is no seed ${id}; p2pfs seeds lists all`)
    return job
  }

  async #nextTick(signal: AbortSignal): Promise<void> {
    const ticked = Promise.withResolvers<void>()
    const onStop = (): void => ticked.reject(this.#stopping.signal.reason)
    this.#ticked.add(ticked.resolve)
    this.#stopping.signal.addEventListener('abort', onStop, { once: true })
    try {
      await orAbort(ticked.promise, signal)
    } finally {
      this.#ticked.delete(ticked.resolve)
      this.#stopping.signal.removeEventListener('abort', onStop)
    }
  }
}

const isWanted: Record<TargetState, boolean> = { placing: true, held: true, failed: false, gone: false }
