import { CborReader, CborWriter, isCutShort } from './cbor-stream.ts'
import { ChunkTable } from './chunk-table.ts'
import { parseDigest, type Digest } from './digest.ts'
import { parseEntry } from './layer-entry.ts'
import { EntryPacker, PackedEntries, type LayerEntries } from './packed-entries.ts'

/** Everything about one layer. It is a function of the uncompressed tar. */
export interface LayerIndex {
  diffId: Digest
  /** Length of the uncompressed tar (bytes). */
  tarBytes: number
  /** The data segment: file contents in tar order, each file from a new 4 KiB block, zeros between them. */
  chunks: ChunkTable
  entries: LayerEntries
}

/** Raised when anything changes that decides on chunk boundaries, or on the order of bytes in data segments. */
export const formatVersion = 3

/** Names the record in errors. */
const record = 'layer index'
/** Keys in CBOR's order. */
const keys = ['diffId', 'digests', 'entries', 'lengths', 'version', 'tarBytes'] as const

/** The stored and wire form; SPEC.md, "Layer index". */
export function encodeLayerIndex(index: LayerIndex): Uint8Array<ArrayBuffer> {
  const pieces: Uint8Array[] = []
  for (const piece of encodeLayerIndexPieces(index)) pieces.push(Uint8Array.from(piece))
  return new Uint8Array(Buffer.concat(pieces))
}

/**
 * The stored and wire form in pieces, of which each is freed when the next is asked for: all may be hundreds of
 * megabytes.
 */
export function* encodeLayerIndexPieces({ diffId, tarBytes, chunks, entries }: LayerIndex): Generator<Uint8Array> {
  const head = new CborWriter().map(keys.length)
  head.text('diffId').text(diffId)
  head.text('digests').bytes(chunks.digests)
  head.text('entries').array(entries.length)
  yield head.finish()
  yield* PackedEntries.from(entries).encoded()
  const tail = new CborWriter().text('lengths').bytes(chunks.encodeLengths())
  tail.text('version').integer(formatVersion)
  tail.text('tarBytes').integer(tarBytes)
  yield tail.finish()
}

/** @throws invalid for bytes that are not a layer index of this format version. */
export function parseLayerIndex(bytes: Uint8Array): LayerIndex {
  const parser = new LayerIndexParser()
  parser.push(bytes)
  return parser.finish()
}

/** Parses a layer index that comes in pieces: it may have hundreds of megabytes. */
export class LayerIndexParser {
  /** Pieces that make no whole item yet. */
  #pending: Buffer[] = []
  #pendingBytes = 0
  /** Until so many are pending it is not worth trying again: a long item comes in many pieces. */
  #enoughBytes = 0
  #head: { diffId: Digest; digests: Uint8Array; count: number } | undefined
  readonly #packer = new EntryPacker()
  #entries = 0
  /** End of the furthest extent in the data segment, and begin of the furthest in the tar. */
  #segmentEnd = 0
  #lastTarOffset = 0

  /** @throws invalid for bytes that are no part of a layer index */
  push(bytes: Uint8Array): void {
    // A copy, for the piece is the caller's.
    this.#pending.push(Buffer.from(bytes))
    this.#pendingBytes += bytes.length
    if (this.#pendingBytes < this.#enoughBytes) return
    const rest = this.#parseItems(Buffer.concat(this.#pending))
    this.#enoughBytes = rest.length === this.#pendingBytes ? 2 * rest.length : 0
    this.#pending = [rest]
    this.#pendingBytes = rest.length
  }

  /** @throws invalid where something is missing, or another format version */
  finish(): LayerIndex {
    const reader = new CborReader(this.#parseItems(Buffer.concat(this.#pending)), record)
    if (this.#head === undefined) this.#parseHead(reader)
    const { diffId, digests, count } = this.#head!
    if (this.#entries < count) this.#parseEntry(reader)
    expectKey(reader, 'lengths')
    const chunks = ChunkTable.parse(reader.bytes('lengths'), digests)
    expectKey(reader, 'version')
    const version = reader.unsigned('version')
    if (version !== formatVersion) reader.fail(`format version ${version} is not ${formatVersion}`)
    expectKey(reader, 'tarBytes')
    const tarBytes = reader.unsigned('tarBytes')
    reader.finish()
    if (this.#segmentEnd > chunks.sizeBytes || this.#lastTarOffset > tarBytes)
      reader.fail('an extent leaves the data segment or the tar')
    return { diffId, tarBytes, chunks, entries: this.#packer.finish() }
  }

  /** Parses the head and entries as far as they are whole. @returns the rest */
  #parseItems(input: Buffer): Buffer {
    const reader = new CborReader(input, record)
    let parsed = 0
    try {
      if (this.#head === undefined) this.#parseHead(reader)
      for (parsed = reader.offset; this.#entries < this.#head!.count; parsed = reader.offset) {
        this.#parseEntry(reader)
        this.#packer.addEncoded(input.subarray(parsed, reader.offset))
      }
    } catch (error) {
      if (!isCutShort(error)) throw error
    }
    return input.subarray(parsed)
  }

  #parseHead(reader: CborReader): void {
    if (reader.map('index') !== keys.length) reader.fail('other fields than it has')
    expectKey(reader, 'diffId')
    const diffId = parseDigest(reader.text('diffId'))
    expectKey(reader, 'digests')
    const digests = Uint8Array.from(reader.bytes('digests'))
    expectKey(reader, 'entries')
    this.#head = { diffId, digests, count: reader.array('entries') }
  }

  #parseEntry(reader: CborReader): void {
    reader.within(`${record}: entry ${this.#entries}`)
    const { extents, sizeBytes } = parseEntry(reader)
    for (const { lengthBytes, fileOffset, segmentOffset, tarOffset } of extents) {
      if (fileOffset + lengthBytes > sizeBytes) reader.fail('an extent leaves its file')
      this.#segmentEnd = Math.max(this.#segmentEnd, segmentOffset + lengthBytes)
      this.#lastTarOffset = Math.max(this.#lastTarOffset, tarOffset)
    }
    this.#entries++
    reader.within(record)
  }
}

function expectKey(reader: CborReader, expected: (typeof keys)[number]): void {
  if (reader.text('key') !== expected) reader.fail(`${expected} is missing`)
}
