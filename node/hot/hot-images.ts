import type { ToldMount } from '../../protocol/messages/seed.ts'
import { seedJobId, type SeedImage, type SeedJob } from '../../protocol/seed-job.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import { TokenBucket } from '../base/token-bucket.ts'
import type { SeedClient } from '../peers/seed/client.ts'
import type { HotRoom } from '../seeds/hot-room.ts'
import type { KeptJobs } from '../seeds/kept-jobs.ts'
import type { RegionHosts } from '../seeds/region-hosts.ts'
import type { SeedJobs } from '../seeds/seed-jobs.ts'
import { countersOfImage, hotLimits, type HotLimits } from './hot-limits.ts'
import { demandOf, keyOf, MountCounts, nameKey, type MountCount } from './mount-counts.ts'
import { MountNews } from './mount-news.ts'
import type { MovedTags } from './moved-tags.ts'

/** How often counts are looked at (ms). */
const tickMs = 5_000
/** Sources whose pace is remembered. */
const maxSources = 1024

export interface HotImagesParts {
  hosts: Pick<RegionHosts, 'own' | 'firstByResponsibility'>
  jobs: Pick<SeedJobs, 'accept' | 'cancel'>
  kept: Pick<KeptJobs, 'get'>
  tags: Pick<MovedTags, 'look' | 'refresh'>
  room: Pick<HotRoom, 'fit'>
  client: Pick<SeedClient, 'mounted'>
  log: Log
  clock?: Clock
  /** Milliseconds since 1970. */
  today?: () => number
}

interface HotImage {
  image: SeedImage
  name: string
  sinceMs: number
}

/** One image as this host counts it. */
export interface CountedImage extends MountCount {
  isHot: boolean
}

/**
 * Has the region hold what it mounts often. Each mount is told to the three hosts that come first in the order of the image's
 * name; the first of them that is awake gives an order, as an operator would, as long as the image is hot.
 */
export class HotImages implements AsyncDisposable {
  readonly #parts: HotImagesParts
  readonly #isOn: boolean
  readonly #limits: HotLimits
  readonly #clock: Clock
  readonly #today: () => number
  readonly #counts: MountCounts
  readonly #news: MountNews
  readonly #stopping = new AbortController()
  readonly #paces = new BoundedMap<string, TokenBucket>({ maxEntries: maxSources })
  /** Images that are hot, by key. */
  readonly #hot = new Map<string, HotImage>()
  /** Names whose tag is about to be looked at because a member told of another digest. */
  readonly #toLookAt = new Set<string>()
  /** Ids of the orders that this host has ended itself: an operator's word against one stands. */
  readonly #cooled = new BoundedMap<string, true>({ maxEntries: 1024 })
  #cancelTick: (() => void) | undefined
  #running: Promise<void> = Promise.resolve()

  constructor(parts: HotImagesParts, { isOn, limits = hotLimits }: { isOn: boolean; limits?: HotLimits }) {
    this.#parts = parts
    this.#isOn = isOn
    this.#limits = limits
    this.#clock = parts.clock ?? systemClock
    this.#today = parts.today ?? Date.now
    this.#counts = new MountCounts({ now: this.#clock.now }, limits)
    const { hosts, client, log } = parts
    this.#news = new MountNews({
      own: hosts.own,
      countersOf: (image) => hosts.firstByResponsibility(nameKey(image), countersOfImage),
      client,
      count: (images) => this.told(images, hosts.own),
      clock: this.#clock,
      log,
      signal: this.#stopping.signal,
    })
  }

  start(): void {
    if (!this.#isOn) return
    this.#run(async () => await this.#fit())
    this.#tickLater()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#cancelTick?.()
    this.#news.stop()
    await this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** This host has mounted the image; or, with 0 mounts, the registry has just said that its name stands for it. */
  mounted({ reference, platform, format, manifestDigest, rootfsDigest }: SeedImage, mounts = 1): void {
    if (this.#isOn) this.#news.note({ reference, platform, format, manifestDigest, rootfsDigest }, mounts)
  }

  /** Counts what a host has mounted, within what one source may have counted. */
  told(images: readonly ToldMount[], source: string): void {
    if (!this.#isOn) return
    for (const { image, mounts } of images) {
      if (!this.#paceOf(source).tryTake()) return
      this.#counts.add(image, mounts, source)
      this.#lookWhereOther(image)
    }
  }

  /** Looks at the tag of a hot image when a member tells that it stands for another one; once, however many tell it. */
  #lookWhereOther(image: SeedImage): void {
    const name = nameKey(image)
    if (this.#toLookAt.has(name)) return
    for (const hot of this.#hot.values()) {
      if (hot.name !== name || hot.image.manifestDigest === image.manifestDigest) continue
      this.#toLookAt.add(name)
      return this.#run(async () => {
        this.#toLookAt.delete(name)
        await this.#look(hot.image, this.#limits.toldLookMs)
      })
    }
  }

  /** The images that this host counts, the heaviest first. */
  counted(): CountedImage[] {
    return this.#counts.list().map((count) => ({ ...count, isHot: this.#hot.has(keyOf(count.image)) }))
  }

  #paceOf(source: string): TokenBucket {
    const pace = this.#paces.get(source) ?? new TokenBucket({ ...this.#limits.told, now: this.#clock.now })
    this.#paces.set(source, pace)
    return pace
  }

  #tickLater(): void {
    if (this.#stopping.signal.aborted) return
    this.#cancelTick = this.#clock.after(tickMs, () => {
      this.#run(async () => await this.#tick())
      void this.#running.finally(() => this.#tickLater())
    })
  }

  /** Work is done one piece after the other. */
  #run(work: () => Promise<void>): void {
    const done = async (): Promise<void> => {
      try {
        if (!this.#stopping.signal.aborted) await work()
      } catch (error) {
        if (!this.#stopping.signal.aborted) this.#parts.log.debug('hot images wait', { error })
      }
    }
    this.#running = this.#running.then(done)
  }

  async #fit(): Promise<void> {
    await this.#parts.room.fit({ signal: this.#stopping.signal })
  }

  async #tick(): Promise<void> {
    await this.#fit()
    const counts = this.#counts.list()
    this.#noteHot(counts)
    let jobs = 0
    for (const count of counts) {
      const { image } = count
      const hot = this.#hot.get(keyOf(image))
      if (hot === undefined) await this.#cool(image)
      else if (jobs++ < this.#limits.jobs && this.#clock.now() - hot.sinceMs >= this.#limits.settleMs)
        await this.#place(count)
    }
    await this.#refresh(counts)
  }

  /** Has tags that are mounted now and then asked for ahead of their mounts, which find a fresh answer in the region. */
  async #refresh(counts: readonly MountCount[]): Promise<void> {
    const { hosts, tags, log } = this.#parts
    const { refresh, lookMs } = this.#limits
    let asked = 0
    for (const { image, mounts } of counts) {
      if (asked >= refresh.atOnce || mounts < refresh.mounts) return
      if (this.#hot.has(keyOf(image)) || hosts.firstByResponsibility(nameKey(image), 1)[0] !== hosts.own) continue
      try {
        const signal = this.#stopping.signal
        if (await tags.refresh(image, { notWithinMs: lookMs, signal })) asked++
      } catch (error) {
        this.#stopping.signal.throwIfAborted()
        asked++
        log.debug('tag of a mounted image cannot be asked for', { error, digest: image.manifestDigest })
      }
    }
  }

  #noteHot(counts: readonly MountCount[]): void {
    const { hot, cool } = this.#limits
    const counted = new Set<string>()
    for (const { image, mounts } of counts) {
      const key = keyOf(image)
      counted.add(key)
      // Three mounts within some seconds are three, although the first counts a little less by now.
      if (Math.round(mounts * 10) / 10 >= hot && !this.#hot.has(key)) this.#becomeHot(image, this.#clock.now())
      if (mounts < cool) this.#hot.delete(key)
    }
    for (const key of this.#hot.keys()) if (!counted.has(key)) this.#hot.delete(key)
  }

  #becomeHot(image: SeedImage, sinceMs: number): void {
    this.#hot.set(keyOf(image), { image, name: nameKey(image), sinceMs })
  }

  /** Gives the order for a hot image, or gives it anew, where this host is the first of its counters; and looks at its tag. */
  async #place(count: MountCount): Promise<void> {
    const { hosts, jobs, kept, log } = this.#parts
    const { image } = count
    if (hosts.firstByResponsibility(nameKey(image), 1)[0] !== hosts.own) return
    const { ttlMs, lookMs } = this.#limits
    const nowMs = this.#today()
    const copies = this.#copiesOf(count)
    const order = { image, extent: 'hot' as const, places: { copies }, atMs: 0, ttlMs, demand: demandOf(count) }
    const id = seedJobId({ ...image, ...order })
    const known = kept.get(id)
    const isEndedByOperator = known?.cancelled === true && !this.#cooled.has(id)
    if (!isEndedByOperator && !this.#isEnough(known, copies, nowMs)) {
      const job = await jobs.accept(order)
      this.#cooled.delete(id)
      log.debug('image is mounted often; the region is to hold it', { digest: image.rootfsDigest, job: job.id, copies })
    }
    await this.#look(image, lookMs)
  }

  #isEnough(job: SeedJob | undefined, copies: number, nowMs: number): boolean {
    if (job === undefined || job.cancelled || job.endsAtMs - nowMs <= this.#limits.ttlMs / 2) return false
    return 'copies' in job.places && job.places.copies >= copies
  }

  /** A power of two, so that few changes of the count change it. */
  #copiesOf({ mounts }: MountCount): number {
    const { least, most } = this.#limits.copies
    return Math.min(most, Math.max(least, 2 ** Math.floor(Math.log2(Math.max(1, Math.round(mounts))))))
  }

  /** Ends the order that this host has given. Those of others end with their time. */
  async #cool(image: SeedImage): Promise<void> {
    const { hosts, jobs, kept } = this.#parts
    const id = seedJobId({ ...image, extent: 'hot', places: { copies: 0 }, atMs: 0, demand: { mounts: 0, hosts: 0 } })
    const job = kept.get(id)
    if (job === undefined || job.cancelled || job.acceptedBy !== hosts.own) return
    await jobs.cancel(id, { signal: this.#stopping.signal })
    this.#cooled.set(id, true)
  }

  /** Takes the image that the tag of a hot one stands for now to be as hot. */
  async #look(image: SeedImage, notWithinMs: number): Promise<void> {
    const { hosts, tags, log } = this.#parts
    if (hosts.firstByResponsibility(nameKey(image), 1)[0] !== hosts.own) return
    const moved = await tags.look(image, { notWithinMs, signal: this.#stopping.signal })
    if (moved === undefined) return
    this.#counts.inherit(image, moved)
    const hot = this.#hot.get(keyOf(image))
    if (hot !== undefined && !this.#hot.has(keyOf(moved))) this.#becomeHot(moved, hot.sinceMs)
    log.info('tag of an image that is mounted often has moved; the new image is placed', { digest: moved.rootfsDigest })
  }
}
