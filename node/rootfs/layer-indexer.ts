import { createHash } from 'node:crypto'
import type { Piece } from '../../protocol/blob-map.ts'
import { blockBytes } from '../../protocol/chunk-table.ts'
import { parseDigest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ByteString, EntryType, Extent, LayerEntry, LayerIndex } from '../../protocol/layer-index.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import { Chunker } from './chunker.ts'
import { checkLayerBytes, checkMetadata, defaultLayerLimits, metadataBytes, type LayerLimits } from './layer-limits.ts'
import { TarParser, type SparseSegment, type TarEntry } from './tar/parser.ts'

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

/** A stretch of a file that goes into the region as one run, and what of it the tar has. */
interface Run {
  fileOffset: number
  lengthBytes: number
  /** Where its first segment is in the tar. */
  tarOffset: number
  segments: SparseSegment[]
}

/** An entry of which this part may still change the extents. */
type OwnEntry = Omit<LayerEntry, 'extents'> & { extents: Extent[] }

/** Of an entry that has none. */
const none: readonly never[] = []

/** Makes a layer's index and chunks from its tar, pushed in pieces of any size. */
export class LayerIndexer {
  readonly #chunker: Chunker
  readonly #hash = createHash('sha256')
  readonly #entries: OwnEntry[] = []
  readonly #parser: TarParser
  readonly #limits: LayerLimits
  #tarBytes = 0
  #metadataBytes = 0
  #entry: ByteString | undefined
  #runs: Run[] = []
  /** Positions in the two lists: they may be long, and a list is slow to shorten at its head. */
  #runIndex = 0
  #segmentIndex = 0
  #extents: Extent[] = []
  /** Where the run that has begun is in the region, and its next segment in the tar. */
  #segmentOffset = 0
  #tarOffset = 0
  /** Where the next byte of content belongs: in the first run, if that has begun; segment in it; position in the file. */
  #running = false
  #segment: SparseSegment | undefined
  #position = 0

  constructor(sink: ChunkSink, limits: LayerLimits = defaultLayerLimits) {
    this.#limits = limits
    this.#chunker = new Chunker(sink)
    this.#parser = new TarParser({
      entry: (entry) => this.#begin(entry),
      content: (bytes) => this.#content(bytes),
      end: () => undefined,
    })
  }

  /** Which bytes of the tar have become bytes of the region. */
  readonly pieces: Piece[] = []

  /** The entry that is being read, as the tar names it; undefined before the first and after the last. */
  get entry(): ByteString | undefined {
    return this.#entry
  }

  /** @throws invalid naming the entry; what the sink threw */
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
    // A run of a sparse file is wider than its data in the tar; at its very end that would reach beyond it.
    for (const { extents } of this.#entries) {
      for (const extent of extents)
        extent.tarOffset = Math.max(0, Math.min(extent.tarOffset, tarBytes - extent.lengthBytes))
    }
    return { diffId: parseDigest(`sha256:${this.#hash.digest('hex')}`), tarBytes, chunks, entries: this.#entries }
  }

  #begin(entry: TarEntry): void {
    this.#entry = entry.path
    checkLayerBytes(entry.contentOffset + entry.contentBytes, this.#limits, entry.path)
    this.#runs = entry.contentBytes === 0 ? [] : runsOf(entry)
    this.#runIndex = 0
    const kept = this.#describe(entry)
    // Content of a marker is nobody's.
    if (kept?.type !== 'file') this.#runs = []
    if (kept === undefined) return
    this.#metadataBytes += metadataBytes({ ...kept, extents: this.#runs })
    checkMetadata(this.#metadataBytes, this.#limits, entry.path)
    this.#extents = this.#runs.length === 0 ? (none as never[]) : []
    kept.extents = this.#extents
    this.#entries.push(kept)
  }

  #content(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const run = this.#runs[this.#runIndex]
      if (run === undefined) return
      if (!this.#running) {
        const segmentOffset = this.#chunker.begin(run.lengthBytes)
        checkLayerBytes(segmentOffset + run.lengthBytes, this.#limits, this.#entry)
        this.#extents.push({
          fileOffset: run.fileOffset,
          lengthBytes: run.lengthBytes,
          segmentOffset,
          tarOffset: run.tarOffset,
        })
        this.#position = run.fileOffset
        this.#segmentOffset = segmentOffset
        this.#tarOffset = run.tarOffset
        this.#running = true
        this.#segmentIndex = 0
      }
      if (this.#segment === undefined) {
        this.#segment = run.segments[this.#segmentIndex++]!
        const { offset, lengthBytes } = this.#segment
        this.#zeros(offset - this.#position)
        this.pieces.push({
          segmentOffset: this.#segmentOffset + offset - run.fileOffset,
          lengthBytes,
          tarOffset: this.#tarOffset,
        })
        this.#tarOffset += lengthBytes
      }
      const length = Math.min(bytes.length - at, this.#segment.offset + this.#segment.lengthBytes - this.#position)
      this.#chunker.push(bytes.subarray(at, at + length))
      at += length
      this.#position += length
      if (this.#position < this.#segment.offset + this.#segment.lengthBytes) continue
      this.#segment = undefined
      if (this.#segmentIndex < run.segments.length) continue
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

  /** The entry without its extents; undefined for what is no part of the layer. */
  #describe(entry: TarEntry): OwnEntry | undefined {
    const path = normalise(entry.path)
    const slash = path.lastIndexOf('/')
    const name = path.slice(slash + 1)
    const parent = slash < 0 ? '' : path.slice(0, slash)
    const described = (type: EntryType, at: ByteString): OwnEntry => ({
      path: at,
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
    // Bookkeeping of aufs.
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
 * Without `.`, `..` and doubled slashes, relative to the root; by its text alone, as umoci and containerd do it.
 * @throws invalid for a path that leaves the root: umoci clips it, but it means no good
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

/** A file without holes is one run; the pieces of one with holes are widened to whole blocks, and joined where they touch. */
function runsOf({ segments, sizeBytes, contentBytes, contentOffset }: TarEntry): Run[] {
  if (segments === undefined) {
    return [
      {
        fileOffset: 0,
        lengthBytes: contentBytes,
        tarOffset: contentOffset,
        segments: [{ offset: 0, lengthBytes: contentBytes }],
      },
    ]
  }
  const runs: Run[] = []
  let tarOffset = contentOffset
  for (const segment of segments) {
    if (segment.lengthBytes === 0) continue
    const start = Math.floor(segment.offset / blockBytes) * blockBytes
    const end = Math.min(Math.ceil((segment.offset + segment.lengthBytes) / blockBytes) * blockBytes, sizeBytes)
    const last = runs.at(-1)
    if (last !== undefined && last.fileOffset + last.lengthBytes >= start) {
      last.lengthBytes = end - last.fileOffset
      last.segments.push(segment)
    } else runs.push({ fileOffset: start, lengthBytes: end - start, tarOffset, segments: [segment] })
    tarOffset += segment.lengthBytes
  }
  return runs
}
