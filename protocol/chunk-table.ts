import { digestBytes, digestFromBytes, digestOf, digestToBytes, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'

/** All regions and chunks begin and end on this boundary. */
export const blockBytes = 4096

/** No chunk is longer, in bytes: what a reader may have to hold for one of them. */
export const maxChunkBytes = 256 * 1024

/**
 * The chunks of one region (the data region of a layer, or the metadata region of a rootfs), in order and
 * without gaps. Typed arrays, because a rootfs of 60 GB has a quarter of a million of them.
 */
export class ChunkTable {
  readonly count: number
  readonly sizeBytes: number
  /** Offset of each chunk within the region, and the region's size last: `count + 1` numbers, bytes. */
  readonly offsets: Float64Array
  /** `count` raw digests of 32 bytes, in order. */
  readonly digests: Uint8Array
  #id: Digest | undefined

  /**
   * @param lengths bytes of each chunk: multiples of 4096, up to {@link maxChunkBytes}
   * @throws invalid where a length is not, or the two arrays differ in their count
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

  /** SHA-256 of the encoded table: peers name a region by it when they say what they hold of it. */
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

  /** Index of the chunk that holds byte `offset` of the region, `0 <= offset < sizeBytes`. */
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

  /** @throws invalid for a table that {@link encodeLengths} cannot have written. */
  static parse(lengths: Uint8Array, digests: Uint8Array): ChunkTable {
    if (lengths.length % 4 !== 0) throw new P2pfsError('invalid', 'chunk table: lengths cut short')
    const view = new DataView(lengths.buffer, lengths.byteOffset, lengths.byteLength)
    const numbers = new Float64Array(lengths.length / 4)
    for (let i = 0; i < numbers.length; i++) numbers[i] = view.getUint32(i * 4, true) * blockBytes
    return new ChunkTable(numbers, digests)
  }
}

/** Collects the chunks of a region in order. */
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
