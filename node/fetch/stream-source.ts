import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { orAbort, SingleFlight } from '../base/single-flight.ts'
import type { Urgency } from '../base/urgency.ts'
import type { SegmentStreams } from '../layers/segment-streams.ts'
import { inStore, type ChunkRequest, type Delivery } from '../model/chunk-request.ts'
import type { ChunkFiles } from '../model/chunk-sink.ts'
import type { WholeReadReason } from '../model/whole-read.ts'
import type { ChunkSource, SourceOptions } from './source.ts'
import type { Inventory } from '../store/inventory.ts'

interface Waiting {
  urgency: Urgency
  resolve: (delivery: Delivery) => void
}

/** One segment on its way through, and who waits for which of its chunks. */
interface LayerStream {
  waiting: Map<Digest, Waiting[]>
  /** Chunks that passed and are not on the disk yet: bounded by the stream, which waits for the sink. */
  keeping: Map<Digest, Uint8Array>
  passed: Set<Digest>
  done: Promise<void>
}

export interface StreamSourceParts {
  streams: Pick<SegmentStreams, 'streamOf'>
  inventory: Pick<Inventory, 'get' | 'put' | 'openThreadWriting' | 'adoptFrom'>
  /** Ends all streams: the daemon stops. */
  signal: AbortSignal
  log: Log
}

/**
 * Streams the whole segment that a chunk is in, once for all who wait for any of its chunks, and keeps every chunk that
 * passes.
 */
export class StreamSource implements ChunkSource {
  readonly #parts: StreamSourceParts
  readonly #streams = new Map<Digest, LayerStream>()
  readonly #starting = new SingleFlight<LayerStream>()

  constructor(parts: StreamSourceParts) {
    this.#parts = parts
  }

  /**
   * @param options `reason`: why the segment is not read at random
   * @throws missing where nothing tells how to make the segment, or the segment does not have the chunk; what its
   *   stream throws; the signal's reason
   */
  async fetch(
    request: ChunkRequest,
    { signal, urgency, reason = 'no-map' }: Pick<SourceOptions, 'signal' | 'urgency'> & { reason?: WholeReadReason },
  ): Promise<Delivery> {
    const { table, digest } = request
    const stream =
      this.#streams.get(table) ??
      (await this.#starting.run(table, signal, async (wanted) => await this.#start(table, reason, wanted)))
    const keeping = stream.keeping.get(digest)
    if (keeping !== undefined) return keeping
    if (stream.passed.has(digest)) {
      const bytes = await this.#parts.inventory.get(digest)
      if (bytes !== undefined) return bytes
    }
    const found = Promise.withResolvers<Delivery>()
    const waiting = stream.waiting.get(digest) ?? []
    stream.waiting.set(digest, waiting)
    waiting.push({ urgency, resolve: found.resolve })
    const ended = stream.done.then((): never => {
      throw new P2pfsError('missing', 'the layer in the registry does not have this chunk', { digest })
    })
    return await orAbort(Promise.race([found.promise, ended]), signal)
  }

  /** Finding out how takes large records from the disk: it is done once for all that ask. */
  async #start(table: Digest, reason: WholeReadReason, wanted: AbortSignal): Promise<LayerStream> {
    const { streams, inventory, log, signal } = this.#parts
    const run = await streams.streamOf(table)
    wanted.throwIfAborted()
    if (run === undefined) {
      throw new P2pfsError('missing', 'no image known on this host has the segment of this chunk', { table })
    }
    const stream: LayerStream = { waiting: new Map(), keeping: new Map(), passed: new Set(), done: Promise.resolve() }
    const put = async (digest: Digest, bytes: Uint8Array): Promise<void> => {
      deliver(stream, digest, bytes)
      stream.keeping.set(digest, bytes)
      try {
        await inventory.put(digest, bytes, 'registry')
        // Before it leaves `keeping`: a reader that asks now finds the chunk in one of both.
        stream.passed.add(digest)
      } finally {
        stream.keeping.delete(digest)
      }
    }
    // Never silent: it costs as much as pulling the layer.
    log.info('segment is streamed whole', { table, reason })
    stream.done = run({ put, openFiles: () => this.#filesOf(stream) }, { signal, reason }).finally(() =>
      this.#streams.delete(table),
    )
    stream.done.catch(() => undefined)
    this.#streams.set(table, stream)
    return stream
  }

  /** The thread writes what nobody waits for, and sends what somebody does: that is answered before it is on the disk. */
  #filesOf(stream: LayerStream): ChunkFiles {
    const { inventory } = this.#parts
    const thread = inventory.openThreadWriting()
    const passed = (digest: Digest): void => {
      stream.passed.add(digest)
      deliver(stream, digest, inStore)
    }
    return {
      writing: thread.writing,
      decide: async ({ digest, lengthBytes }) => {
        if (stream.waiting.get(digest)?.some(({ urgency }) => urgency.isUrgent) === true) return 'send'
        if (await thread.grant(digest, lengthBytes)) return 'write'
        passed(digest)
        return 'drop'
      },
      adopt: (chunks) => {
        inventory.adoptFrom(thread, chunks, 'registry')
        for (const { digest } of chunks) passed(digest)
      },
      failed: async (cause) => await thread.failed(cause),
      [Symbol.asyncDispose]: async () => await thread[Symbol.asyncDispose](),
    }
  }
}

function deliver({ waiting }: LayerStream, digest: Digest, delivery: Delivery): void {
  for (const { resolve } of waiting.get(digest) ?? []) resolve(delivery)
  waiting.delete(digest)
}
