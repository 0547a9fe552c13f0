import { createHash } from 'node:crypto'
import { blockBytes } from '../../protocol/chunk-table.ts'
import { parseDigest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ByteString, EntryType, Extent, LayerEntry, LayerIndex } from '../../protocol/layer-index.ts'
import type { ChunkSink } from './chunk-sink.ts'
import { Chunker } from './chunker.ts'
import { TarParser, type SparseSegment, type TarEntry } from './tar/parser.ts'

const types: Record<TarEntry['type'], EntryType> = { 0: 'file', 1: 'hardlink', 2: 'symlink', 3: 'character', 4: 'block', 5: 'directory', 6: 'fifo' }
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

/** Makes a layer's index and chunks from its tar, pushed in pieces of any size. */
export class LayerIndexer {
  readonly #chunker: Chunker
  readonly #hash = createHash('sha256')
  readonly #entries: LayerEntry[] = []
  readonly #parser: TarParser
  #tarBytes = 0
  #runs: Run[] = []
  #extents: Extent[] = []
  /** Where the next byte of content belongs: in the first run, if that has begun; segment in it; position in the file. */
  #running = false
  #segment: SparseSegment | undefined
  #position = 0

  constructor(sink: ChunkSink) {
    this.#chunker = new Chunker(sink)
    this.#parser = new TarParser({
      entry: (entry) => this.#begin(entry),
      content: (bytes) => this.#content(bytes),
      end: () => undefined,
    })
  }

  /** @throws invalid naming the entry; what the sink threw */
  async push(bytes: Buffer): Promise<void> {
    this.#hash.update(bytes)
    this.#tarBytes += bytes.length
    this.#parser.push(bytes)
    await this.#chunker.drain()
  }

  /** @throws invalid where the tar is cut short */
  async finish(): Promise<LayerIndex> {
    this.#parser.finish()
    const chunks = await this.#chunker.finish()
    const tarBytes = this.#tarBytes
    // A run of a sparse file is wider than its data in the tar; at its very end that would reach beyond it.
    const inside = (extent: Extent): Extent => ({ ...extent, tarOffset: Math.max(0, Math.min(extent.tarOffset, tarBytes - extent.lengthBytes)) })
    const entries = this.#entries.map((entry) => (entry.extents.length === 0 ? entry : { ...entry, extents: entry.extents.map(inside) }))
    return { diffId: parseDigest(`sha256:${this.#hash.digest('hex')}`), tarBytes, chunks, entries }
  }

  #begin(entry: TarEntry): void {
    this.#runs = entry.contentBytes === 0 ? [] : runsOf(entry)
    const kept = this.#describe(entry)
    // Content of a marker is nobody's.
    if (kept?.type !== 'file') this.#runs = []
    if (kept === undefined) return
    this.#extents = []
    this.#entries.push({ ...kept, extents: this.#extents })
  }

  #content(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      const [run] = this.#runs
      if (run === undefined) return
      if (!this.#running) {
        const regionOffset = this.#chunker.begin(run.lengthBytes)
        this.#extents.push({ fileOffset: run.fileOffset, lengthBytes: run.lengthBytes, regionOffset, tarOffset: run.tarOffset })
        this.#position = run.fileOffset
        this.#running = true
      }
      if (this.#segment === undefined) {
        this.#segment = run.segments.shift()!
        this.#zeros(this.#segment.offset - this.#position)
      }
      const length = Math.min(bytes.length - at, this.#segment.offset + this.#segment.lengthBytes - this.#position)
      this.#chunker.push(bytes.subarray(at, at + length))
      at += length
      this.#position += length
      if (this.#position < this.#segment.offset + this.#segment.lengthBytes) continue
      this.#segment = undefined
      if (run.segments.length > 0) continue
      this.#zeros(run.fileOffset + run.lengthBytes - this.#position)
      this.#chunker.end()
      this.#runs.shift()
      this.#running = false
    }
  }

  #zeros(count: number): void {
    if (count > 0) this.#chunker.push(Buffer.alloc(count))
    this.#position += count
  }

  /** The entry without its extents; undefined for what is no part of the layer. */
  #describe(entry: TarEntry): LayerEntry | undefined {
    const path = normalise(entry.path)
    const slash = path.lastIndexOf('/')
    const name = path.slice(slash + 1)
    const parent = slash < 0 ? '' : path.slice(0, slash)
    const described = (type: EntryType, at: ByteString): LayerEntry => ({
      path: at,
      type,
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      mtime: entry.mtime,
      xattrs: [...entry.xattrs]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, value]) => ({ name: key, value: Buffer.from(value, 'latin1') })),
      linkTarget: type === 'hardlink' ? normalise(entry.linkName, entry.path) : type === 'symlink' ? entry.linkName : '',
      device: entry.device,
      sizeBytes: type === 'file' ? entry.sizeBytes : 0,
      extents: [],
    })
    if (name === opaqueName) return described('opaque', parent)
    // Bookkeeping of aufs.
    if (name.startsWith('.wh..wh.')) return undefined
    if (name.startsWith(whiteoutPrefix)) {
      const hidden = name.slice(whiteoutPrefix.length)
      if (hidden === '' || hidden === '.' || hidden === '..') throw new P2pfsError('invalid', 'whiteout of nothing', { entry: entry.path })
      return described('whiteout', parent === '' ? hidden : `${parent}/${hidden}`)
    }
    const type = types[entry.type]
    if (path === '' && type !== 'directory') throw new P2pfsError('invalid', 'the root is not a directory', { entry: entry.path })
    return described(type, path)
  }
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
    else if (parts.pop() === undefined) throw new P2pfsError('invalid', `path leaves the image: ${JSON.stringify(path)}`, { entry })
  }
  return parts.join('/')
}

/** A file without holes is one run; the pieces of one with holes are widened to whole blocks, and joined where they touch. */
function runsOf({ segments, sizeBytes, contentBytes, contentOffset }: TarEntry): Run[] {
  if (segments === undefined) {
    return [{ fileOffset: 0, lengthBytes: contentBytes, tarOffset: contentOffset, segments: [{ offset: 0, lengthBytes: contentBytes }] }]
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
