import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { orAbort, SingleFlight } from '../base/single-flight.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import type { ChunkSource } from './fetcher.ts'

/** Takes chunks as they are found; resolves when one is safely kept. */
export interface ChunkSink {
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
}

/** Passes every chunk of one region to the sink: a layer streamed from its registry, or metadata made anew. */
export type SegmentStream = (sink: ChunkSink, options: { signal: AbortSignal }) => Promise<void>

/** One region on its way through, and who waits for which of its chunks. */
interface LayerStream {
  waiting: Map<Digest, ((bytes: Uint8Array) => void)[]>
  /** Those that passed and are not on the disk yet: bounded by the stream, which waits for the sink. */
  keeping: Map<Digest, Uint8Array>
  passed: Set<Digest>
  done: Promise<void>
}

export interface StreamSourceParts {
  /** How to make all chunks of the region; undefined where no image known here has it. */
  streamOf: (table: Digest) => Promise<SegmentStream | undefined>
  /** Keeps what passes. */
  keep: (digest: Digest, bytes: Uint8Array) => Promise<void>
  /** Reads what has passed already. */
  get: (digest: Digest, options: { signal: AbortSignal }) => Promise<Uint8Array | undefined>
  /** Ends all passages: the daemon stops. */
  signal: AbortSignal
  log: Log
}

/**
 * The last resort: streams the whole region that a chunk is in, once for all who wait for any of its chunks, and
 * keeps every chunk that passes.
 */
export class StreamSource implements ChunkSource {
  readonly #parts: StreamSourceParts
  readonly #passages = new Map<Digest, LayerStream>()
  readonly #starting = new SingleFlight<LayerStream>()
  /** Regions that were streamed since the daemon started: at most those that are known. */
  readonly streamed = new Set<Digest>()

  constructor(parts: StreamSourceParts) {
    this.#parts = parts
  }

  /** @throws missing where nothing tells how to make the region, or the region does not have the chunk; what its stream throws */
  async fetch(request: ChunkRequest, { signal }: { signal: AbortSignal }): Promise<Uint8Array> {
    const passage =
      this.#passages.get(request.table) ??
      (await this.#starting.run(request.table, signal, async (wanted) => await this.#start(request.table, wanted)))
    const keeping = passage.keeping.get(request.digest)
    if (keeping !== undefined) return keeping
    if (passage.passed.has(request.digest)) {
      const bytes = await this.#parts.get(request.digest, { signal })
      if (bytes !== undefined) return bytes
    }
    const found = Promise.withResolvers<Uint8Array>()
    const waiting = passage.waiting.get(request.digest)
    if (waiting === undefined) passage.waiting.set(request.digest, [found.resolve])
    else waiting.push(found.resolve)
    const ended = passage.done.then((): never => {
      throw new P2pfsError('missing', 'the layer in the registry does not have this chunk', { digest: request.digest })
    })
    return await orAbort(Promise.race([found.promise, ended]), signal)
  }

  /** Finding out how takes large records from the disk: once for all that ask. */
  async #start(table: Digest, wanted: AbortSignal): Promise<LayerStream> {
    const stream = await this.#parts.streamOf(table)
    wanted.throwIfAborted()
    if (stream === undefined) {
      throw new P2pfsError('missing', 'no image known on this host has the region of this chunk', { table })
    }
    const passage: LayerStream = { waiting: new Map(), keeping: new Map(), passed: new Set(), done: Promise.resolve() }
    const put = async (digest: Digest, bytes: Uint8Array): Promise<void> => {
      for (const resolve of passage.waiting.get(digest) ?? []) resolve(bytes)
      passage.waiting.delete(digest)
      passage.keeping.set(digest, bytes)
      await this.#parts.keep(digest, bytes).finally(() => passage.keeping.delete(digest))
      passage.passed.add(digest)
    }
    // Never silent: it costs as much as pulling the layer.
    this.#parts.log.info('region is streamed whole', { table })
    this.streamed.add(table)
    passage.done = stream({ put }, { signal: this.#parts.signal }).finally(() => this.#passages.delete(table))
    passage.done.catch(() => undefined)
    this.#passages.set(table, passage)
    return passage
  }
}
