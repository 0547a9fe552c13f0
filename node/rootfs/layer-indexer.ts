import { createHash } from 'node:crypto'
import { blockBytes } from '../../protocol/chunk-table.ts'
import { parseDigest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ByteString, EntryType, Extent, LayerEntry } from '../../protocol/layer-entry.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import { EntryPacker } from '../../protocol/packed-entries.ts'
import { ChunkBuffers } from './chunk-buffers.ts'
import { Chunker } from './chunker.ts'
import { checkLayerBytes, checkMetadata, defaultLayerLimits, metadataBytes, type LayerLimits } from './layer-limits.ts'
import { PieceList } from './piece-list.ts'
import { TarParser, type SparseFragment, type TarEntry } from './tar/parser.ts'

const types: Record<TarEntry['type'], EntryType> = {
  0: 'file',
  1: 'hardlink',
  2: 'symlink',
  3: 'character',
  4: 'block',
  5: 'directory',
  6: 'fifo',
}
const whiteoutPrefix = '.wh.'
const opaqueName = '.wh..wh..opq'

/** A part of a file that goes into the data segment as one run. */
interface Run {
  fileOffset: number
  lengthBytes: number
  /** Offset of its first fragment in the tar. */
  tarOffset: number
  /** The parts of it that the tar has; zeros stand between them. */
  fragments: SparseFragment[]
}

/** An entry whose extents are still being filled in. */
type OwnEntry = Omit<LayerEntry, 'extents'> & { extents: Extent[] }

/** One list for the many entries without xattrs or extents. */
const none: readonly never[] = []

/** Makes a layer's index and chunks from its tar, pushed in pieces of any size. */
export class LayerIndexer {
  readonly #chunker: Chunker
  readonly #hash = createHash('sha256')
  readonly #packer = new EntryPacker()
  /** Entries whose extents may still change, in tar order, and where in the tar the furthest extent of each ends. */
  readonly #pending: { entry: OwnEntry; tarEnd: number }[] = []
  readonly #parser: TarParser
  readonly #limits: LayerLimits
  readonly #keepsPieces: boolean
  #tarBytes = 0
  #metadataBytes = 0
  #entry: ByteString | undefined
  #runs: Run[] = []
  /** Positions in the list of runs and in that of a run's fragments. */
  #runIndex = 0
  #fragmentIndex = 0
  #extents: Extent[] = []
  /** Offset of the run that has begun in the data segment. */
  #segmentOffset = 0
  /** Offset of the next fragment in the tar. */
  #tarOffset = 0
  /** Whether the run at the run index has begun. */
  #running = false
  /** The fragment to which the next byte of content belongs; undefined between two of them. */
  #fragment: SparseFragment | undefined
  /** Offset of the next byte of content in the file. */
  #position = 0

  /** @param options `keepsPieces`: whether {@link pieces} are wanted; `buffers`: to which the sink gives those of chunks */
  constructor(
    sink: ChunkSink,
    limits: LayerLimits = defaultLayerLimits,
    { keepsPieces = true, buffers = new ChunkBuffers() } = {},
  ) {
    this.#keepsPieces = keepsPieces
    this.#limits = limits
    this.#chunker = new Chunker(sink, buffers)
    this.#parser = new TarParser({
      entry: (entry) => this.#begin(entry),
      content: (bytes) => this.#content(bytes),
    })
  }

  /** The bytes of the tar that have become bytes of the data segment. */
  readonly pieces = new PieceList()

  /** Path of the entry that is being read, as the tar names it; undefined before the first and after the last. */
  get entry(): ByteString | undefined {
    return this.#entry
  }

  /** @throws invalid naming the entry; the sink's error */
  async push(bytes: Buffer): Promise<void> {
    this.#hash.update(bytes)
    this.#tarBytes += bytes.length
    checkLayerBytes(this.#tarBytes, this.#limits, this.#entry)
    this.#parser.push(bytes)
    await this.#chunker.drain()
  }

  /** @throws invalid where the tar is cut short */
  async finish(): Promise<LayerIndex> {
    this.#parser.finish()
    this.#entry = undefined
    const chunks = await this.#chunker.finish()
    const tarBytes = this.#tarBytes
    for (const { entry } of this.#pending) {
      for (const extent of entry.extents)
        extent.tarOffset = Math.max(0, Math.min(extent.tarOffset, tarBytes - extent.lengthBytes))
      this.#packer.add(entry)
    }
    const entries = this.#packer.finish()
    return { diffId: parseDigest(`sha256:${this.#hash.digest('hex')}`), tarBytes, chunks, entries }
  }

  #begin(entry: TarEntry): void {
    this.#entry = entry.path
    checkLayerBytes(entry.contentOffset + entry.contentBytes, this.#limits, entry.path)
    this.#runs = entry.contentBytes === 0 ? [] : runsOf(entry)
    this.#runIndex = 0
    const kept = this.#describe(entry)
    // Only files have content; that of a whiteout marker, say, is dropped.
    if (kept?.type !== 'file') this.#runs = []
    if (kept === undefined) return
    this.#metadataBytes += metadataBytes({ ...kept, extents: this.#runs })
    checkMetadata(this.#metadataBytes, this.#limits, entry.path)
    this.#extents = this.#runs.length === 0 ? (none as never[]) : []
    kept.extents = this.#extents
    this.#packPending()
    this.#pending.push({ entry: kept, tarEnd: 0 })
  }

  /**
   * Packs the entries before the one that begins, as far as their extents are final. A run of a sparse file is longer
   * than its data in the tar, so at the end of the tar it would reach beyond it: until the tar is longer, nobody knows.
   */
  #packPending(): void {
    let count = 0
    while (count < this.#pending.length && this.#pending[count]!.tarEnd <= this.#tarBytes) count++
    for (const { entry } of this.#pending.splice(0, count)) this.#packer.add(entry)
  }

  #content(bytes: Buffer): void {
    for (let offset = 0; offset < bytes.length;) {
      const run = this.#runs[this.#runIndex]
      if (run === undefined) return
      if (!this.#running) {
        const segmentOffset = this.#chunker.begin(run.lengthBytes)
        checkLayerBytes(segmentOffset + run.lengthBytes, this.#limits, this.#entry)
        this.#extents.push({
          fileOffset: run.fileOffset,
          lengthBytes: run.lengthBytes,
          segmentOffset: segmentOffset,
          tarOffset: run.tarOffset,
        })
        const pending = this.#pending.at(-1)!
        pending.tarEnd = Math.max(pending.tarEnd, run.tarOffset + run.lengthBytes)
        this.#position = run.fileOffset
        this.#segmentOffset = segmentOffset
        this.#tarOffset = run.tarOffset
        this.#running = true
        this.#fragmentIndex = 0
      }
      if (this.#fragment === undefined) {
        this.#fragment = run.fragments[this.#fragmentIndex++]!
        const { offset, lengthBytes } = this.#fragment
        this.#zeros(offset - this.#position)
        if (this.#keepsPieces)
          this.pieces.push({
            segmentOffset: this.#segmentOffset + offset - run.fileOffset,
            lengthBytes,
            tarOffset: this.#tarOffset,
          })
        this.#tarOffset += lengthBytes
      }
      const length = Math.min(
        bytes.length - offset,
        this.#fragment.offset + this.#fragment.lengthBytes - this.#position,
      )
      this.#chunker.push(bytes.subarray(offset, offset + length))
      offset += length
      this.#position += length
      if (this.#position < this.#fragment.offset + this.#fragment.lengthBytes) continue
      this.#fragment = undefined
      if (this.#fragmentIndex < run.fragments.length) continue
      this.#zeros(run.fileOffset + run.lengthBytes - this.#position)
      this.#chunker.end()
      this.#runIndex++
      this.#running = false
    }
  }

  #zeros(count: number): void {
    if (count > 0) this.#chunker.push(Buffer.alloc(count))
    this.#position += count
  }

  /** The entry without its extents; undefined for one that is not part of the layer. */
  #describe(entry: TarEntry): OwnEntry | undefined {
    const path = normalise(entry.path)
    const slash = path.lastIndexOf('/')
    const name = path.slice(slash + 1)
    const parent = slash < 0 ? '' : path.slice(0, slash)
    const described = (type: EntryType, normalPath: ByteString): OwnEntry => ({
      path: normalPath,
      type,
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      mtime: entry.mtime,
      xattrs: entry.xattrs.size === 0 ? none : sortedXattrs(entry.xattrs),
      linkTarget:
        type === 'hardlink' ? normalise(entry.linkName, entry.path) : type === 'symlink' ? entry.linkName : '',
      device: entry.device,
      sizeBytes: type === 'file' ? entry.sizeBytes : 0,
      extents: none as never[],
    })
    if (name === opaqueName) return described('opaque', parent)
    // Other such names are bookkeeping of aufs.
    if (name.startsWith('.wh..wh.')) return undefined
    if (name.startsWith(whiteoutPrefix)) {
      const hidden = name.slice(whiteoutPrefix.length)
      if (hidden === '' || hidden === '.' || hidden === '..')
        throw new P2pfsError('invalid', 'whiteout of nothing', { entry: entry.path })
      return described('whiteout', parent === '' ? hidden : `${parent}/${hidden}`)
    }
    const type = types[entry.type]
    if (path === '' && type !== 'directory')
      throw new P2pfsError('invalid', 'the root is not a directory', { entry: entry.path })
    return described(type, path)
  }
}

function sortedXattrs(xattrs: ReadonlyMap<ByteString, ByteString>): LayerEntry['xattrs'] {
  return [...xattrs]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => ({ name, value: Buffer.from(value, 'latin1') }))
}

/**
 * Removes `.`, `..` and doubled slashes from a path by its text alone, as umoci and containerd do. The result is
 * relative to the root.
 * @throws invalid for a path that leaves the root: umoci clips it, but it is an attack or a mistake
 */
function normalise(path: ByteString, entry = path): ByteString {
  const parts: ByteString[] = []
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part !== '..') parts.push(part)
    else if (parts.pop() === undefined)
      throw new P2pfsError('invalid', `path leaves the image: ${JSON.stringify(path)}`, { entry })
  }
  return parts.join('/')
}

/**
 * A file without holes is one run. The fragments of a file with holes are widened to whole blocks, and joined where
 * they then touch.
 */
function runsOf({ fragments, sizeBytes, contentBytes, contentOffset }: TarEntry): Run[] {
  if (fragments === undefined) {
    return [
      {
        fileOffset: 0,
        lengthBytes: contentBytes,
        tarOffset: contentOffset,
        fragments: [{ offset: 0, lengthBytes: contentBytes }],
      },
    ]
  }
  const runs: Run[] = []
  let tarOffset = contentOffset
  for (const fragment of fragments) {
    if (fragment.lengthBytes === 0) continue
    const start = Math.floor(fragment.offset / blockBytes) * blockBytes
    const end = Math.min(Math.ceil((fragment.offset + fragment.lengthBytes) / blockBytes) * blockBytes, sizeBytes)
    const last = runs.at(-1)
    if (last !== undefined && last.fileOffset + last.lengthBytes >= start) {
      last.lengthBytes = end - last.fileOffset
      last.fragments.push(fragment)
    } else runs.push({ fileOffset: start, lengthBytes: end - start, tarOffset, fragments: [fragment] })
    tarOffset += fragment.lengthBytes
  }
  return runs
}
