import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { MountDemand } from '../../protocol/seed-job.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Room } from '../store/disk-room.ts'
import type { PinKey, PinRecord } from '../store/pin-record.ts'
import { seedLimits, type SeedLimits } from './seed-limits.ts'

export interface PinsParts {
  /** Peer id of this host. */
  own: string
  catalog: Pick<Catalog, 'pins' | 'putPin' | 'deletePin'>
}

/** Whether members, or counted mounts, have placed the image here: the operator has not ordered it. */
const isOfOperator = ({ peer, demand }: PinRecord, own: string): boolean => peer === own && demand === undefined

type PinLimits = Pick<SeedLimits, 'pins' | 'pinnedShare' | 'pinnedSharePerPeer'>

/** A record of an image that has come because it is mounted often. */
export type PlacedPin = PinRecord & { demand: MountDemand }

/** Records of ended pins that are kept; beyond that the oldest is forgotten, and its chunks stay. */
const maxEnded = 1024

/** The images that this host keeps for a time, each for a job. The catalog has them, too. */
export class Pins {
  readonly #parts: PinsParts
  readonly #limits: PinLimits
  readonly #pins = new Map<string, PinRecord>()

  constructor(parts: PinsParts, limits: PinLimits = seedLimits) {
    this.#parts = parts
    this.#limits = limits
  }

  /** Reads the pins in the catalog. */
  async open(): Promise<void> {
    for (const pin of await this.#parts.catalog.pins()) this.#pins.set(pinKey(pin), pin)
  }

  /** The pins; not those that have ended. */
  list(): PinRecord[] {
    return [...this.#pins.values()].filter(isPinned)
  }

  has(pin: PinKey): boolean {
    const found = this.#pins.get(pinKey(pin))
    return found !== undefined && isPinned(found)
  }

  /** Images that have come because they are mounted often. One that is no longer pinned may be evicted. */
  placed(): PlacedPin[] {
    return [...this.#pins.values()].flatMap((pin) =>
      pin.evictable === true && pin.demand !== undefined ? [{ ...pin, demand: pin.demand }] : [],
    )
  }

  /** Chunks of an image that is no longer pinned are here. */
  async noteEnded(pin: PinRecord): Promise<void> {
    await this.#store({ ...pin, untilMs: 0 })
  }

  /** The chunks of an image that is no longer pinned have been evicted. */
  async noteEvicted(pin: PinRecord): Promise<void> {
    await this.#store({ ...pin, sizeBytes: 0, untilMs: 0 })
  }

  /** Somebody has the image here because he wants it himself: it is not evicted. */
  async claim(rootfsDigest: Digest): Promise<void> {
    for (const pin of this.placed()) {
      if (pin.rootfsDigest !== rootfsDigest) continue
      const { evictable: _evictable, ...claimed } = pin
      if (isPinned(pin)) await this.#store(claimed)
      else await this.#forget(pin)
    }
  }

  /**
   * Pins an image, or makes a pin last longer. A pin of this host's operator stays his, and one of a whole image stays
   * one.
   * @throws busy where a member would have too much pinned here; what the catalog throws
   */
  async put(pin: PinRecord, { sizeBytes: diskBytes }: Pick<Room, 'sizeBytes'>): Promise<void> {
    const { own } = this.#parts
    const before = this.#pins.get(pinKey(pin))
    const kept: PinRecord = {
      ...pin,
      untilMs: Math.max(pin.untilMs, before?.untilMs ?? 0),
      ...(before !== undefined && isOfOperator(before, own) && { peer: own }),
      ...(before?.extent === 'full' && isPinned(before) && { extent: 'full', sizeBytes: before.sizeBytes }),
    }
    // An image that somebody has ordered here since stays his.
    const isClaimed = before !== undefined && isPinned(before) && before.evictable !== true
    if (isClaimed) delete kept.evictable
    else if (before?.evictable === true) kept.evictable = true
    if (!isOfOperator(kept, own)) this.#check(kept, diskBytes)
    await this.#store(kept)
  }

  /** Bytes of the images that are here because they are mounted often. */
  get hotBytes(): number {
    return this.#hot().reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  }

  /**
   * Makes room for an image that is mounted often: the pins of those that are mounted less often end.
   * @param budgetBytes what all such images may take
   * @throws busy where that is not enough
   */
  async makeRoom(
    pin: Pick<PlacedPin, 'job' | 'rootfsDigest' | 'sizeBytes' | 'demand'>,
    budgetBytes: number,
  ): Promise<void> {
    const others = this.#hot()
      .filter((other) => pinKey(other) !== pinKey(pin))
      .toSorted((a, b) => a.demand.mounts - b.demand.mounts)
    let bytes = others.reduce((sum, { sizeBytes }) => sum + sizeBytes, pin.sizeBytes)
    const ended = new Set<string>()
    for (const other of others) {
      if (bytes <= budgetBytes || other.demand.mounts >= pin.demand.mounts) break
      bytes -= other.sizeBytes
      ended.add(pinKey(other))
    }
    if (bytes > budgetBytes)
      throw new P2pfsError('busy', 'images that are mounted as often take the room for hot images (--hot-disk)', {
        sizeBytes: pin.sizeBytes,
        budgetBytes,
      })
    await this.#drop((other) => ended.has(pinKey(other)))
  }

  /** Ends pins of images that are mounted often, the lightest first, until they fit in the budget (bytes). */
  async fitHot(budgetBytes: number): Promise<void> {
    let bytes = this.hotBytes
    for (const pin of this.#hot().toSorted((a, b) => a.demand.mounts - b.demand.mounts)) {
      if (bytes <= budgetBytes) return
      bytes -= pin.sizeBytes
      await this.#drop((other) => pinKey(other) === pinKey(pin))
    }
  }

  #hot(): PlacedPin[] {
    return this.list().flatMap((pin) => (pin.demand === undefined ? [] : [{ ...pin, demand: pin.demand }]))
  }

  /** Ends one pin. */
  async end(pin: PinKey): Promise<void> {
    await this.#drop((other) => pinKey(other) === pinKey(pin))
  }

  /** Bytes of the images that are pinned; each counts once. */
  get pinnedBytes(): number {
    const sizes = new Map<Digest, number>()
    for (const { rootfsDigest, sizeBytes } of this.list())
      sizes.set(rootfsDigest, Math.max(sizeBytes, sizes.get(rootfsDigest) ?? 0))
    return [...sizes.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0)
  }

  /** Ends the pins of a job, on the word of a host. Those of this host's operator end on his word only. */
  async release(job: string, peer: string): Promise<void> {
    const { own } = this.#parts
    await this.#drop((pin) => pin.job === job && (!isOfOperator(pin, own) || peer === own))
  }

  /** Ends the pins whose time has come (ms since 1970). */
  async expire(nowMs: number): Promise<void> {
    await this.#drop(({ untilMs }) => untilMs <= nowMs)
  }

  /** @throws busy where the pin is one too many, or too large, with those that members have here */
  #check(pin: PinRecord, diskBytes: number): void {
    const others = this.list().filter((other) => !isOfOperator(other, this.#parts.own) && pinKey(other) !== pinKey(pin))
    const bytesOf = (pins: readonly PinRecord[]): number => pins.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    const ofPeer = others.filter(({ peer }) => peer === pin.peer)
    const { pins, pinnedShare, pinnedSharePerPeer } = this.#limits
    if (
      others.length >= pins ||
      bytesOf(others) + pin.sizeBytes > pinnedShare * diskBytes ||
      bytesOf(ofPeer) + pin.sizeBytes > pinnedSharePerPeer * diskBytes
    )
      throw new P2pfsError('busy', 'members have enough pinned on this host', { peer: pin.peer })
  }

  async #drop(ends: (pin: PinRecord) => boolean): Promise<void> {
    for (const pin of this.list().filter(ends)) {
      if (pin.evictable === true) await this.#store({ ...pin, untilMs: 0 })
      else await this.#forget(pin)
    }
    const ended = this.placed().filter((pin) => !isPinned(pin))
    for (const pin of ended.slice(0, -maxEnded)) await this.#forget(pin)
  }

  async #store(pin: PinRecord): Promise<void> {
    this.#pins.set(pinKey(pin), pin)
    await this.#parts.catalog.putPin(pin)
  }

  async #forget(pin: PinRecord): Promise<void> {
    this.#pins.delete(pinKey(pin))
    await this.#parts.catalog.deletePin(pin)
  }
}

const isPinned = ({ untilMs }: PinRecord): boolean => untilMs > 0

/** One text for what tells a pin from others. */
export const pinKey = ({ job, rootfsDigest }: PinKey): string => `${job} ${rootfsDigest}`
