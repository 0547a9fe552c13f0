import { digestBytes, digestFromBytes, type Digest } from '../../protocol/digest.ts'
import { DigestHash, DigestKey, digestView, isSameDigest } from './digest-key.ts'

/** Rows of a piece: 128 KiB of digests. Pieces are never copied. */
const pieceRows = 4096
const initialSlots = 1024
/** Slots in use at most: beyond it a search takes too many steps. */
const maxLoad = 0.7

/** Stands in the values for a row that is free. */
const free = Number.NaN

interface Piece {
  digests: Uint8Array
  view: DataView
  values: Float64Array
}

/**
 * A map from digests to numbers, for as many chunks as a host has: 40 bytes for each, and 6 to 12 for the index. A `Map` of
 * strings takes some 200.
 */
export class DigestMap {
  readonly #hash = new DigestHash()
  readonly #key = new DigestKey()
  readonly #pieces: Piece[] = []
  /** Rows that were given up. */
  readonly #free: number[] = []
  #rows = 0
  /**
   * For each slot the number of a row plus 1; 0 is an empty one. A digest is in the first slot from its hash on that
   * was empty.
   */
  #slots = new Uint32Array(initialSlots)
  #shift = 32 - Math.log2(initialSlots)

  get size(): number {
    return this.#rows - this.#free.length
  }

  get(digest: Digest): number | undefined {
    return this.getAt(this.#key.of(digest), 0)
  }

  has(digest: Digest): boolean {
    return this.get(digest) !== undefined
  }

  /** The value of the raw digest at `at` (bytes); see `digestView`. */
  getAt(digests: DataView, at: number): number | undefined {
    const found = this.#slots[this.#find(digests, at)]!
    if (found === 0) return undefined
    return this.#pieces[Math.floor((found - 1) / pieceRows)]!.values[(found - 1) % pieceRows]
  }

  /** The row of a digest, by which others keep more about it: below {@link rows}, and the same until it is deleted. */
  rowOf(digest: Digest): number | undefined {
    const found = this.#slots[this.#find(this.#key.of(digest), 0)]!
    return found === 0 ? undefined : found - 1
  }

  /** Rows that there are, free ones included. */
  get rows(): number {
    return this.#rows
  }

  hasRow(row: number): boolean {
    const piece = this.#pieces[Math.floor(row / pieceRows)]
    return row < this.#rows && piece !== undefined && !Number.isNaN(piece.values[row % pieceRows]!)
  }

  /** The digest of a row that is not free. */
  digestOf(row: number): Digest {
    return digestFromBytes(this.#pieces[Math.floor(row / pieceRows)]!.digests, (row % pieceRows) * digestBytes)
  }

  /** @param value not NaN */
  set(digest: Digest, value: number): void {
    const key = this.#key.of(digest)
    const slot = this.#find(key, 0)
    const found = this.#slots[slot]!
    if (found !== 0) return this.#setValue(found - 1, value)
    const row = this.#free.pop() ?? this.#addRow()
    const { digests } = this.#pieces[Math.floor(row / pieceRows)]!
    digests.set(new Uint8Array(key.buffer, key.byteOffset, digestBytes), (row % pieceRows) * digestBytes)
    this.#setValue(row, value)
    this.#slots[slot] = row + 1
    if (this.size > this.#slots.length * maxLoad) this.#grow()
  }

  /** @returns whether it was there */
  delete(digest: Digest): boolean {
    const slot = this.#find(this.#key.of(digest), 0)
    const found = this.#slots[slot]!
    if (found === 0) return false
    this.#setValue(found - 1, free)
    this.#free.push(found - 1)
    this.#empty(slot)
    return true
  }

  /** The digests, as they are when the iteration comes to them. One that is added meanwhile may be left out. */
  *keys(): Generator<Digest, undefined> {
    for (let row = 0; row < this.#rows; row++) {
      const { digests, values } = this.#pieces[Math.floor(row / pieceRows)]!
      const i = row % pieceRows
      if (!Number.isNaN(values[i]!)) yield digestFromBytes(digests, i * digestBytes)
    }
  }

  #setValue(row: number, value: number): void {
    this.#pieces[Math.floor(row / pieceRows)]!.values[row % pieceRows] = value
  }

  #addRow(): number {
    if (this.#rows % pieceRows === 0) {
      const digests = new Uint8Array(pieceRows * digestBytes)
      this.#pieces.push({ digests, view: digestView(digests), values: new Float64Array(pieceRows) })
    }
    return this.#rows++
  }

  /** The slot of a digest, or the empty one where it belongs. */
  #find(digests: DataView, at: number): number {
    const last = this.#slots.length - 1
    for (let slot = this.#hash.of(digests, at) >>> this.#shift; ; slot = (slot + 1) & last) {
      const found = this.#slots[slot]!
      if (found === 0) return slot
      const { view } = this.#pieces[Math.floor((found - 1) / pieceRows)]!
      if (isSameDigest(view, ((found - 1) % pieceRows) * digestBytes, digests, at)) return slot
    }
  }

  #home(row: number): number {
    const { view } = this.#pieces[Math.floor(row / pieceRows)]!
    return this.#hash.of(view, (row % pieceRows) * digestBytes) >>> this.#shift
  }

  /** Empties a slot, and moves up those behind it that a search would no longer get to. */
  #empty(slot: number): void {
    const last = this.#slots.length - 1
    let hole = slot
    for (let next = (hole + 1) & last; this.#slots[next] !== 0; next = (next + 1) & last) {
      const distance = (next - this.#home(this.#slots[next]! - 1)) & last
      if (distance < ((next - hole) & last)) continue
      this.#slots[hole] = this.#slots[next]!
      hole = next
    }
    this.#slots[hole] = 0
  }

  #grow(): void {
    const former = this.#slots
    this.#slots = new Uint32Array(former.length * 2)
    this.#shift--
    const last = this.#slots.length - 1
    for (const entry of former) {
      if (entry === 0) continue
      let slot = this.#home(entry - 1)
      while (this.#slots[slot] !== 0) slot = (slot + 1) & last
      this.#slots[slot] = entry
    }
  }
}
