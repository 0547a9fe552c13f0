import { P2pfsError } from '../../protocol/errors.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Room } from '../store/disk-room.ts'
import type { PinKey, PinRecord } from '../store/pin-record.ts'
import { seedLimits, type SeedLimits } from './seed-limits.ts'

export interface PinsParts {
  /** Peer id of this host. */
  own: string
  catalog: Pick<Catalog, 'pins' | 'putPin' | 'deletePin'>
}

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
      ...(before?.peer === own && { peer: own }),
      ...(before?.extent === 'full' && { extent: 'full', sizeBytes: before.sizeBytes }),
    }
    if (kept.peer !== own) this.#check(kept, diskBytes)
    this.#pins.set(pinKey(kept), kept)
    await catalog.putPin(kept)
  }

  /** Ends the pins of a job, on the word of a host. Those of this host's operator end on his word only. */
  async release(job: string, peer: string): Promise<void> {
    const { own } = this.#parts
    await this.#drop((pin) => pin.job === job && (pin.peer !== own || peer === own))
  }

  /** Ends the pins whose time has come (ms since 1970). */
  async expire(nowMs: number): Promise<void> {
    await this.#drop(({ untilMs }) => untilMs <= nowMs)
  }

  /** @throws busy where the pin is one too many, or too large, with those that members have here */
  #check(pin: PinRecord, diskBytes: number): void {
    const others = this.list().filter(({ peer, ...other }) => peer !== this.#parts.own && pinKey(other) !== pinKey(pin))
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
