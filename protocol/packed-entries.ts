import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { CborReader, CborWriter } from './cbor-stream.ts'
import { encodeEntry, parseEntry, type LayerEntry } from './layer-entry.ts'

/** The entries of a layer, in tar order. */
export interface LayerEntries extends Iterable<LayerEntry> {
  readonly length: number
}

/** Encoded entries that are compressed together, bytes: enough to compress well, few enough to hold once more. */
const blockBytes = 256 * 1024

/** Encoded entries of a layer, compressed. */
export interface EntryBlock {
  count: number
  /** Length before compression, bytes. */
  encodedBytes: number
  /** Shared memory, so that threads can hand it to each other. */
  bytes: Uint8Array<SharedArrayBuffer>
}

/**
 * Entries as they stand in an encoded layer index, compressed: of a layer of a million files they take 20 MB, and would
 * take 600 MB as objects. Each is an object only while somebody looks at it.
 */
export class PackedEntries implements LayerEntries {
  readonly blocks: readonly EntryBlock[]
  readonly length: number

  constructor(blocks: readonly EntryBlock[]) {
    this.blocks = blocks
    this.length = blocks.reduce((sum, { count }) => sum + count, 0)
  }

  static from(entries: LayerEntries): PackedEntries {
    if (entries instanceof PackedEntries) return entries
    const packer = new EntryPacker()
    for (const entry of entries) packer.add(entry)
    return packer.finish()
  }

  /** The encoded entries, in pieces of many. A piece is freed when the next is asked for. */
  *encoded(): Generator<Uint8Array> {
    for (const block of this.blocks) {
      const bytes = expand(block)
      yield bytes
      free(bytes)
    }
  }

  *[Symbol.iterator](): Generator<LayerEntry> {
    for (const block of this.blocks) {
      const bytes = expand(block)
      const reader = new CborReader(bytes, 'packed entries')
      for (let i = 0; i < block.count; i++) yield parseEntry(reader)
      free(bytes)
    }
  }
}

/** @returns a buffer of its own, for it is too large for Node's pool. Room for a byte more spares zlib a second one. */
function expand({ bytes, encodedBytes }: EntryBlock): Buffer {
  return zstdDecompressSync(bytes, { chunkSize: Math.max(encodedBytes + 1, Buffer.poolSize) })
}

/** At once: the garbage collector would let hundreds of megabytes stand. */
function free(bytes: Buffer): void {
  if (bytes.buffer instanceof ArrayBuffer) bytes.buffer.transfer(0)
}

/** Packs entries one after the other. */
export class EntryPacker {
  readonly #blocks: EntryBlock[] = []
  #writer = new CborWriter()
  #count = 0

  add(entry: LayerEntry): void {
    encodeEntry(this.#writer, entry)
    this.#counted()
  }

  /** @param entry encoded */
  addEncoded(entry: Uint8Array): void {
    this.#writer.encoded(entry)
    this.#counted()
  }

  finish(): PackedEntries {
    if (this.#count > 0) this.#endBlock()
    return new PackedEntries(this.#blocks)
  }

  #counted(): void {
    this.#count++
    if (this.#writer.length >= blockBytes) this.#endBlock()
  }

  #endBlock(): void {
    const encoded = this.#writer.finish()
    const compressed = zstdCompressSync(encoded)
    const bytes = new Uint8Array(new SharedArrayBuffer(compressed.length))
    bytes.set(compressed)
    this.#blocks.push({ count: this.#count, encodedBytes: encoded.length, bytes })
    this.#writer = new CborWriter()
    this.#count = 0
  }
}
