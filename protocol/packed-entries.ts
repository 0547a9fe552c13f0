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

  /** The encoded entries, in pieces of many. */
  *encoded(): Generator<Uint8Array> {
    for (const { bytes } of this.blocks) yield zstdDecompressSync(bytes)
  }

  *[Symbol.iterator](): Generator<LayerEntry> {
    for (const { count, bytes } of this.blocks) {
      const reader = new CborReader(zstdDecompressSync(bytes), 'packed entries')
      for (let i = 0; i < count; i++) yield parseEntry(reader)
    }
  }
}

/** Packs entries one after the other. */
export class EntryPacker {
  readonly #blocks: EntryBlock[] = []
  #writer = new CborWriter()
  #count = 0

  add(entry: LayerEntry): void {
    encodeEntry(this.#writer, entry)
    this.#count++
    if (this.#writer.length >= blockBytes) this.#endBlock()
  }

  finish(): PackedEntries {
    if (this.#count > 0) this.#endBlock()
    return new PackedEntries(this.#blocks)
  }

  #endBlock(): void {
    const compressed = zstdCompressSync(this.#writer.finish())
    const bytes = new Uint8Array(new SharedArrayBuffer(compressed.length))
    bytes.set(compressed)
    this.#blocks.push({ count: this.#count, bytes })
    this.#writer = new CborWriter()
    this.#count = 0
  }
}
