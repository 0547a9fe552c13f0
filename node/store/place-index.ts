import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestBytes, type Digest } from '../../protocol/digest.ts'
import { DigestHash, DigestKey, digestView, isSameDigest } from './digest-key.ts'

const initialSlots = 1024
/** Slots in use at most: beyond it a search takes too many steps. */
const maxLoad = 0.7
/** More places than a slot can number: 256 TB in packs. */
const maxPlaces = 2 ** 32 - 1

/** A segment whose chunks are looked up; its chunks have the places from `first` on. */
export interface Indexed {
  readonly table: ChunkTable
  first: number
}

interface Segment<T extends Indexed> {
  indexed: T
  digests: DataView
}

/** A place of a chunk: several segments may have it, and one may have it several times. */
export interface FoundPlace<T> {
  segment: T
  index: number
}

/**
 * Finds the places of chunks in segments by their digests. The digests stay where they are, in the segments' tables, so
 * a chunk takes 6 to 12 bytes here, and each further place of the same chunk some 50.
 */
export class PlaceIndex<T extends Indexed> {
  readonly #hash = new DigestHash()
  readonly #key = new DigestKey()
  /** In the order of their first places. */
  #segments: Segment<T>[] = []
  /** The place after all others. */
  #end = 0
  /** For each slot a place plus 1; 0 is an empty one. A digest is in the first slot from its hash on that was empty. */
  #slots = new Uint32Array(initialSlots)
  #shift = 32 - Math.log2(initialSlots)
  /** Slots in use. */
  #used = 0
  /** The next place of the same chunk. */
  readonly #next = new Map<number, number>()

  /** @param segment its `first` is set here */
  add(segment: T): void {
    const { count } = segment.table
    const needed = this.#used + count
    // Places of segments that were deleted are given again when the index is built anew.
    if (needed > this.#slots.length * maxLoad || this.#end + count > maxPlaces) this.#rebuild(needed)
    this.#append(segment)
  }

  delete(segment: T): void {
    const { first, table } = segment
    const end = first + table.count
    const digests = digestView(table.digests)
    for (let index = 0; index < table.count; index++) {
      const slot = this.#find(digests, index * digestBytes)
      const kept: number[] = []
      for (let place = this.#headOf(slot); place !== undefined;) {
        const next = this.#next.get(place)
        this.#next.delete(place)
        if (place < first || place >= end) kept.push(place)
        place = next
      }
      this.#chain(slot, kept)
    }
    this.#segments = this.#segments.filter(({ indexed }) => indexed !== segment)
    const last = this.#segments.at(-1)?.indexed
    this.#end = last === undefined ? 0 : last.first + last.table.count
  }

  has(digest: Digest): boolean {
    return this.#slots[this.#find(this.#key.of(digest), 0)] !== 0
  }

  /** The places of a chunk. The one that was added first comes first. */
  *of(digest: Digest): Generator<FoundPlace<T>, undefined> {
    let place = this.#headOf(this.#find(this.#key.of(digest), 0))
    for (; place !== undefined; place = this.#next.get(place)) {
      const { indexed } = this.#segmentOf(place)
      yield { segment: indexed, index: place - indexed.first }
    }
  }

  #append(segment: T): void {
    const { table } = segment
    const digests = digestView(table.digests)
    segment.first = this.#end
    if (table.count === 0) return
    this.#segments.push({ indexed: segment, digests })
    this.#end += table.count
    for (let index = 0; index < table.count; index++) {
      const place = segment.first + index
      const slot = this.#find(digests, index * digestBytes)
      const head = this.#headOf(slot)
      if (head === undefined) {
        this.#slots[slot] = place + 1
        this.#used++
        continue
      }
      const second = this.#next.get(head)
      if (second !== undefined) this.#next.set(place, second)
      this.#next.set(head, place)
    }
  }

  #headOf(slot: number): number | undefined {
    const head = this.#slots[slot]!
    return head === 0 ? undefined : head - 1
  }

  /** Makes these the places of the slot's chunk. */
  #chain(slot: number, places: readonly number[]): void {
    if (this.#slots[slot] === 0) return
    const [head] = places
    if (head === undefined) return this.#empty(slot)
    this.#slots[slot] = head + 1
    for (let i = 1; i < places.length; i++) this.#next.set(places[i - 1]!, places[i]!)
  }

  #segmentOf(place: number): Segment<T> {
    let low = 0
    let high = this.#segments.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.#segments[middle]!.indexed.first <= place) low = middle
      else high = middle - 1
    }
    return this.#segments[low]!
  }

  /** The slot of a digest, or the empty one where it belongs. */
  #find(digests: DataView, at: number): number {
    const last = this.#slots.length - 1
    for (let slot = this.#hash.of(digests, at) >>> this.#shift; ; slot = (slot + 1) & last) {
      const head = this.#headOf(slot)
      if (head === undefined) return slot
      const segment = this.#segmentOf(head)
      if (isSameDigest(segment.digests, (head - segment.indexed.first) * digestBytes, digests, at)) return slot
    }
  }

  /** Empties a slot, and moves up those behind it that a search would no longer get to. */
  #empty(slot: number): void {
    const last = this.#slots.length - 1
    let hole = slot
    for (let next = (hole + 1) & last; this.#slots[next] !== 0; next = (next + 1) & last) {
      const head = this.#slots[next]! - 1
      const { digests, indexed } = this.#segmentOf(head)
      const home = this.#hash.of(digests, (head - indexed.first) * digestBytes) >>> this.#shift
      if (((next - home) & last) < ((next - hole) & last)) continue
      this.#slots[hole] = this.#slots[next]!
      hole = next
    }
    this.#slots[hole] = 0
    this.#used--
  }

  #rebuild(chunks: number): void {
    let slots = this.#slots.length
    for (; chunks > slots * maxLoad; slots *= 2) this.#shift--
    const segments = this.#segments
    this.#segments = []
    this.#end = 0
    this.#used = 0
    this.#next.clear()
    this.#slots = new Uint32Array(slots)
    for (const { indexed } of segments) this.#append(indexed)
  }
}
