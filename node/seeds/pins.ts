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

  list(): PinRecord[] {
    return [...this.#pins.values()]
  }

  has(pin: PinKey): boolean {
    return this.#pins.has(pinKey(pin))
  }

  /**
   * Pins an image, or makes a pin last longer. A pin of this host's operator stays his, and one of a whole image stays
   * one.
   * @throws busy where a member would have too much pinned here; what the catalog throws
   */
  async put(pin: PinRecord, { sizeBytes: diskBytes }: Pick<Room, 'sizeBytes'>): Promise<void> {
    const { own, catalog } = this.#parts
    const before = this.#pins.get(pinKey(pin))
    const kept: PinRecord = {
      ...pin,
      untilMs: Math.max(pin.untilMs, before?.untilMs ?? 0),
      ...(before !== undefined && isOfOperator(before, own) && { peer: own }),
      ...(before?.extent === 'full' && { extent: 'full', sizeBytes: before.sizeBytes }),
    }
    if (!isOfOperator(kept, own)) this.#check(kept, diskBytes)
    this.#pins.set(pinKey(kept), kept)
    await catalog.putPin(kept)
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
    pin: Pick<PinRecord, 'job' | 'rootfsDigest' | 'sizeBytes'> & { demand: MountDemand },
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
      throw new P2pfsError('busy', 'images that are mounted as often take the room for such (--hot-disk)', {
        sizeBytes: pin.sizeBytes,
        budgetBytes,
      })
    await this.#drop((other) => ended.has(pinKey(other)))
  }

  #hot(): (PinRecord & { demand: MountDemand })[] {
    return this.list().flatMap((pin) => (pin.demand === undefined ? [] : [{ ...pin, demand: pin.demand }]))
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
      this.#pins.delete(pinKey(pin))
      await this.#parts.catalog.deletePin(pin)
    }
  }
}

/** One text for what tells a pin from others. */
export const pinKey = ({ job, rootfsDigest }: PinKey): string => `${job} ${rootfsDigest}`
