import { ChunkTable, blockBytes } from '../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../protocol/digest.ts'
import type { ChunkRequest } from '../../node/model/chunk-request.ts'
import { requestOf } from '../../node/model/rootfs-chunks.ts'
import type { Random } from './process-random.ts'

/** The shape of an image (bytes, counts): what a boot reads of it, and how it is cut. */
export interface ImageShape {
  layers: number
  compressedBytes: number
  /** Bytes that the boot reads, as they are compressed in the registry. */
  bootBytes: number
  /** Index, chunk tables, blob maps, boot profile: what every mount needs first. */
  publicationBytes: number
  /** Plain bytes of one compressed byte. */
  ratio: number
  /** Whether as many bytes again are read after the boot. */
  hasLater: boolean
}

/** Image *py*: python3 with numpy of Debian. */
export const pythonImage: ImageShape = {
  layers: 4,
  compressedBytes: 124.5e6,
  bootBytes: 17.2e6,
  publicationBytes: 1.5e6,
  ratio: 2,
  hasLater: false,
}

/** The image, with so much of its size and of what is read of it. Chunks are as large as before, so there are fewer. */
export function scaledImage(shape: ImageShape, scale: number): ImageShape {
  return {
    ...shape,
    compressedBytes: shape.compressedBytes * scale,
    bootBytes: shape.bootBytes * scale,
    publicationBytes: shape.publicationBytes * scale,
  }
}

/** Chunks that a boot reads one after the other in a layer, before it reads elsewhere. */
const runChunks = 6
const maxChunkBlocks = 64

/** An image of random chunks. Those that nobody reads have a digest and no bytes. */
export class SimulatedImage {
  readonly shape: ImageShape
  /** The publication first, then the layers. */
  readonly tables: ChunkTable[] = []
  /** Bytes that a mount needs before it can be read. */
  readonly publication: ChunkRequest[] = []
  /** Chunks that the boot reads, in order. */
  readonly boot: ChunkRequest[] = []
  /** Chunks that are read after it, in no order. */
  readonly later: ChunkRequest[] = []
  readonly #contents = new Map<Digest, Uint8Array>()
  readonly #places = new Map<Digest, ChunkRequest & { number: number }>()
  readonly #byId = new Map<Digest, ChunkTable>()

  constructor(shape: ImageShape, random: Random) {
    this.shape = shape
    const publication = this.#segment(shape.publicationBytes, random, () => true)
    for (let index = 0; index < publication.count; index++) this.publication.push(requestOf(publication, index))
    const layerBytes = (shape.compressedBytes * shape.ratio) / shape.layers
    const bootShare = shape.bootBytes / shape.compressedBytes
    const runs: ChunkRequest[][] = []
    for (let layer = 0; layer < shape.layers; layer++) {
      let isRead = false
      let isLater = false
      const read: number[] = []
      const later: number[] = []
      const table = this.#segment(layerBytes, random, (index) => {
        if (index % runChunks === 0) {
          isRead = random.next() < bootShare
          isLater = shape.hasLater && !isRead && random.next() < bootShare
        }
        if (isRead) read.push(index)
        if (isLater) later.push(index)
        return isRead || isLater
      })
      for (const index of later) this.later.push(requestOf(table, index))
      for (let at = 0; at < read.length; at += runChunks)
        runs.push(read.slice(at, at + runChunks).map((index) => requestOf(table, index)))
    }
    while (runs.length > 0) this.boot.push(...runs.splice(random.below(runs.length), 1)[0]!)
    for (const table of this.tables)
      for (let index = 0; index < table.count; index++) {
        const request = requestOf(table, index)
        if (this.#contents.has(request.digest))
          this.#places.set(request.digest, { ...request, number: this.#places.size })
      }
  }

  /** The bytes of a chunk that somebody reads. */
  contentOf(digest: Digest): Uint8Array | undefined {
    return this.#contents.get(digest)
  }

  /** The place of a chunk that somebody reads, and its number among all of these. */
  placeOf(digest: Digest): (ChunkRequest & { number: number }) | undefined {
    return this.#places.get(digest)
  }

  tableOf(id: Digest): ChunkTable | undefined {
    return this.#byId.get(id)
  }

  /** Chunks that somebody reads. */
  get readChunks(): number {
    return this.#places.size
  }

  /** Bytes that one host alone reads from the registry. */
  get ownBytes(): number {
    const bytes = [...this.publication, ...this.boot, ...this.later].reduce(
      (sum, { lengthBytes }) => sum + lengthBytes,
      0,
    )
    return bytes / this.shape.ratio
  }

  #segment(sizeBytes: number, random: Random, isRead: (index: number) => boolean): ChunkTable {
    const lengths: number[] = []
    const digests: Uint8Array[] = []
    for (let offset = 0, index = 0; offset < sizeBytes; index++) {
      const length = blockBytes * (1 + random.below(maxChunkBlocks))
      offset += length
      lengths.push(length)
      if (isRead(index)) {
        const bytes = new Uint8Array(length)
        const words = new Uint32Array(bytes.buffer)
        for (let i = 0; i < words.length; i += 16) words[i] = random.next() * 2 ** 32
        const digest = digestOf(bytes)
        this.#contents.set(digest, bytes)
        digests.push(digestToBytes(digest))
      } else digests.push(random.bytes(32))
    }
    const table = new ChunkTable(lengths, new Uint8Array(Buffer.concat(digests)))
    this.tables.push(table)
    this.#byId.set(table.id, table)
    return table
  }
}
