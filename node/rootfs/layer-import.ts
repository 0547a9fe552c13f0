import { Worker } from 'node:worker_threads'
import type { Digest } from '../../protocol/digest.ts'
import { errorCodes, P2pfsError } from '../../protocol/errors.ts'
import { parseBlobMap, type BlobMap } from '../../protocol/blob-map.ts'
import { parseLayerIndex, type LayerIndex } from '../../protocol/layer-index.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import { defaultLayerLimits, type LayerLimits } from './layer-limits.ts'
import type { FromLayerWorker, LayerWorkerSetup, ToLayerWorker } from './layer-worker.ts'

/** Compressed bytes that the worker has and has not read yet: bounds memory, and hides the hand-over. Bytes. */
const maxUnreadBytes = 1024 * 1024
/** The worker's heap without entries, MiB. */
const heapBaseMb = 192
/** Heap that entries take at most, bytes for each byte of metadata. */
const heapFactor = 4
/** The worker's young generation, MiB. A small one frees buffers outside the heap soon. */
const youngGenerationMb = 3

export interface ImportLayerOptions {
  signal: AbortSignal
  limits?: LayerLimits
  /** Gets the number of compressed bytes read so far. */
  onProgress?: (bytes: number) => void
}

/** Everything that one pass over a layer finds out. */
export interface ImportedLayer {
  index: LayerIndex
  /** Leads to any place of the layer's data in the blob; undefined for a layer whose digest was not given. */
  map: BlobMap | undefined
}

/**
 * Reads a layer once, in a thread of its own: checks its digest and diff id, makes its index, passes its chunks to
 * `sink`. Memory is bounded whatever the layer's size. Where it throws, the sink keeps the chunks that have passed.
 * @param source the layer's bytes as the registry has them. A piece that is all of its ArrayBuffer is transferred.
 * @param layer the digests that must come out, where they are known; else a name for errors
 * @throws invalid naming the layer and tar entry, for a layer that is damaged, malformed, too large, or of another
 *   digest; the source's and the sink's errors
 */
export async function importLayer(
  source: AsyncIterable<Uint8Array>,
  layer: { digest: Digest; diffId: Digest } | { name: string },
  sink: ChunkSink,
  { signal, onProgress, limits = defaultLayerLimits }: ImportLayerOptions,
): Promise<ImportedLayer> {
  signal.throwIfAborted()
  const worker = new Worker(new URL('./layer-worker.ts', import.meta.url), {
    workerData: {
      limits,
      ...('digest' in layer
        ? { digest: layer.digest, diffId: layer.diffId }
        : { digest: undefined, diffId: undefined }),
    } satisfies LayerWorkerSetup,
    resourceLimits: {
      maxOldGenerationSizeMb: heapBaseMb + Math.ceil((heapFactor * limits.maxMetadataBytes) / 2 ** 20),
      maxYoungGenerationSizeMb: youngGenerationMb,
    },
  })
  const name = 'digest' in layer ? layer.digest : layer.name
  const outcome = Promise.withResolvers<{ index: Uint8Array; map: Uint8Array | undefined }>()
  const onAbort = (): void => outcome.reject(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  const post = (message: ToLayerWorker): void => worker.postMessage(message)
  const keep = async ({ id, digest, bytes }: { id: number; digest: Digest; bytes: Uint8Array }): Promise<void> => {
    try {
      await sink.put(digest, bytes)
      post({ stored: id })
    } catch (error) {
      outcome.reject(error)
    }
  }
  let ended = false
  let unread = 0
  let read = 0
  let room: (() => void) | undefined
  worker.on('message', (message: FromLayerWorker) => {
    if ('read' in message) {
      unread -= message.read
      read += message.read
      onProgress?.(read)
      room?.()
    } else if ('chunk' in message) {
      if (!ended) void keep(message.chunk)
    } else if ('index' in message) outcome.resolve(message)
    else outcome.reject(failure(name, message.error))
  })
  worker.on('error', (error: NodeJS.ErrnoException) =>
    outcome.reject(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? outOfMemory(name, error) : error),
  )
  worker.on('exit', () => outcome.reject(new Error(`layer ${name}: the thread that reads it has ended`)))
  const iterator = source[Symbol.asyncIterator]()
  const feed = async (): Promise<void> => {
    for (;;) {
      while (unread > maxUnreadBytes && !ended) {
        await new Promise<void>((resolve) => {
          room = resolve
        })
      }
      if (ended) return
      const { done, value } = await iterator.next()
      if (ended) return
      if (done === true) return post({ end: true })
      const bytes = ownBuffer(value)
      unread += bytes.length
      worker.postMessage({ bytes } satisfies ToLayerWorker, [bytes.buffer])
    }
  }
  feed().catch((error: unknown) => outcome.reject(error as Error))
  let encoded: { index: Uint8Array; map: Uint8Array | undefined }
  try {
    encoded = await outcome.promise
  } finally {
    ended = true
    room?.()
    signal.removeEventListener('abort', onAbort)
    await worker.terminate()
    iterator.return?.()?.catch(() => undefined)
  }
  // Parsed only now that the worker's heap is gone: both at once are too much for a layer of millions of files.
  return {
    index: parseLayerIndex(encoded.index),
    map: encoded.map === undefined ? undefined : parseBlobMap(encoded.map),
  }
}

/** The bytes in an ArrayBuffer that holds nothing else, and can be transferred. */
function ownBuffer(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength
    ? (bytes as Uint8Array<ArrayBuffer>)
    : Uint8Array.from(bytes)
}

function outOfMemory(name: string, cause: unknown): P2pfsError {
  return new P2pfsError('invalid', `layer ${name}: reading it takes more memory than --max-layer-metadata allows`, {
    cause,
    layer: name,
  })
}

function failure(
  name: string,
  { code, message, details }: { code: string | undefined; message: string; details: Record<string, unknown> },
): Error {
  const knownCode = errorCodes.find((candidate) => candidate === code)
  const entry = typeof details['entry'] === 'string' ? `, entry ${JSON.stringify(details['entry'])}` : ''
  if (knownCode === undefined) return new Error(`layer ${name}: ${message}`)
  return new P2pfsError(knownCode, `layer ${name}${entry}: ${message}`, { ...details, layer: name })
}
