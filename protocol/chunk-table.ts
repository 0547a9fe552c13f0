import { digestBytes, digestFromBytes, digestOf, digestToBytes, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'

/** All segments and chunks begin and end at multiples of this (bytes). */
export const blockBytes = 4096

/** The longest chunk (bytes): a reader may have to hold one in memory. */
export const maxChunkBytes = 256 * 1024

/**
 * The chunks of one segment, in order and without gaps. They are kept in typed arrays, because a rootfs of 60 GB has a
 * quarter of a million of them.
 */
export class ChunkTable {
  readonly count: number
  readonly sizeBytes: number
  /** Offset of each chunk in the segment, and last the size of the segment (bytes): `count + 1` numbers. */
  readonly offsets: Float64Array
  /** `count` raw digests of 32 bytes, in order. */
  readonly digests: Uint8Array
  #id: Digest | undefined

  /**
   * @param lengths the size of each chunk (bytes): a multiple of 4096, up to {@link maxChunkBytes}
   * @throws invalid for any other length, or arrays of different counts
   */
  constructor(lengths: ArrayLike<number>, digests: Uint8Array) {
    if (digests.length !== lengths.length * digestBytes) {
      throw new P2pfsError('invalid', 'chunk table: lengths and digests differ in count')
    }
    this.count = lengths.length
    this.digests = digests
    this.offsets = new Float64Array(this.count + 1)
    let offset = 0
    for (let i = 0; i < this.count; i++) {
      const length = lengths[i]!
      if (length <= 0 || length > maxChunkBytes || length % blockBytes !== 0) {
        throw new P2pfsError('invalid', `chunk table: chunk ${i} has ${length} bytes`)
      }
      offset += length
      this.offsets[i + 1] = offset
    }
    this.sizeBytes = offset
  }

  /** SHA-256 of the encoded table. It names the segment: peers announce by it what they hold. */
  get id(): Digest {
    this.#id ??= digestOf(Buffer.concat([this.encodeLengths(), this.digests]))
    return this.#id
  }

  lengthAt(index: number): number {
    return this.offsets[index + 1]! - this.offsets[index]!
  }

  digestAt(index: number): Digest {
    return digestFromBytes(this.digests, index * digestBytes)
  }

  /** Index of the chunk that has byte `offset` of the segment, `0 <= offset < sizeBytes`. */
  indexOf(offset: number): number {
    let low = 0
    let high = this.count - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.offsets[middle]! <= offset) low = middle
      else high = middle - 1
    }
    return low
  }

  /** The lengths as unsigned 32-bit little-endian numbers of 4096-byte blocks. */
  encodeLengths(): Uint8Array {
    const bytes = new Uint8Array(this.count * 4)
    const view = new DataView(bytes.buffer)
    for (let i = 0; i < this.count; i++) view.setUint32(i * 4, this.lengthAt(i) / blockBytes, true)
    return bytes
  }

  /** @throws invalid for a table that {@link encodeLengths} cannot have written */
  static parse(lengths: Uint8Array, digests: Uint8Array): ChunkTable {
    if (lengths.length % 4 !== 0) throw new P2pfsError('invalid', 'chunk table: lengths cut short')
    const view = new DataView(lengths.buffer, lengths.byteOffset, lengths.byteLength)
    const numbers = new Float64Array(lengths.length / 4)
    for (let i = 0; i < numbers.length; i++) numbers[i] = view.getUint32(i * 4, true) * blockBytes
    return new ChunkTable(numbers, digests)
  }
}

/** Collects the chunks of a segment in order. */
export class ChunkTableBuilder {
  readonly #lengths: number[] = []
  readonly #digests: Uint8Array[] = []

  add(digest: Digest, lengthBytes: number): void {
    this.#lengths.push(lengthBytes)
    this.#digests.push(digestToBytes(digest))
  }

  build(): ChunkTable {
    return new ChunkTable(this.#lengths, new Uint8Array(Buffer.concat(this.#digests)))
  }
}
