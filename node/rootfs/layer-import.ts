import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { parseBlobMap, type BlobMap } from '../../protocol/blob-map.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { isRawImage } from '../../protocol/raw-image.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import { defaultLayerLimits, type LayerLimits } from './layer-limits.ts'
import type { LayerBytesRead, LayerWorkerSetup, ReadLayer, ToLayerWorker } from './layer-worker.ts'
import { ChunkThread, isOutOfMemory } from './thread/chunk-thread.ts'
import { receiveLayerIndex } from './thread/messages.ts'

/** Compressed bytes that the worker has and has not read yet: bounds memory, and hides the hand-over. Bytes. */
const maxUnreadBytes = 1024 * 1024
/** The worker's heap without entries, MiB. Those that sparse files hold up take as much as their metadata at most. */
const heapBaseMb = 192

export interface ImportLayerOptions {
  signal: AbortSignal
  limits?: LayerLimits
  /** Gets the number of compressed bytes read so far. */
  onProgress?: (bytes: number) => void
  /** A pause before the next piece of the layer, if there is one: the piece waits for its end, with nothing of the layer under way. */
  makeWay?: () => Promise<void> | undefined
}

/** Everything that one pass over a layer finds out. */
export interface ImportedLayer {
  index: LayerIndex
  /** Leads to any place of the layer's data in the blob; undefined for a layer whose digest was not given. */
  map: BlobMap | undefined
}

/**
 * Reads a layer once, in a thread of its own: checks its digest and diff id, makes its index, passes its chunks to
 * `sink`. Memory is bounded whatever the layer's size. If it throws, the sink keeps the chunks that have passed.
 * @param source the layer's bytes as the registry has them. A piece that is all of its ArrayBuffer is transferred.
 * @param layer the digests that must come out, where they are known; else a name for errors
 * @throws invalid naming the layer and tar entry, for a layer that is damaged, malformed, too large, or of another
 *   digest; the source's and the sink's errors
 */
export async function importLayer(
  source: AsyncIterable<Uint8Array>,
  layer: { digest: Digest; diffId: Digest; mediaType?: string } | { name: string },
  sink: ChunkSink,
  { signal, onProgress, makeWay, limits = defaultLayerLimits }: ImportLayerOptions,
): Promise<ImportedLayer> {
  signal.throwIfAborted()
  const name = 'digest' in layer ? layer.digest : layer.name
  let unread = 0
  let read = 0
  let ended = false
  let room: (() => void) | undefined
  const iterator = source[Symbol.asyncIterator]()
  const whenUnread = async (maxBytes: number): Promise<void> => {
    while (unread > maxBytes && !ended) {
      await new Promise<void>((resolve) => {
        room = resolve
      })
    }
  }
  const feed = async (): Promise<void> => {
    for (;;) {
      await whenUnread(maxUnreadBytes)
      const way = makeWay?.()
      if (way !== undefined) {
        await whenUnread(0)
        await way
      }
      if (ended) return
      const { done, value } = await iterator.next()
      if (ended) return
      if (done === true) return thread.post({ end: true } satisfies ToLayerWorker)
      const bytes = ownBuffer(value)
      unread += bytes.length
      thread.post({ bytes } satisfies ToLayerWorker, [bytes.buffer])
    }
  }
  await using thread = new ChunkThread<ReadLayer, LayerBytesRead>(new URL('./layer-worker.ts', import.meta.url), {
    workerData: {
      name,
      limits,
      ...('digest' in layer
        ? { digest: layer.digest, diffId: layer.diffId }
        : { digest: undefined, diffId: undefined }),
      isRaw: 'mediaType' in layer && isRawImage([{ mediaType: layer.mediaType ?? '' }]),
    } satisfies LayerWorkerSetup,
    heapMb: heapBaseMb + Math.ceil(limits.maxMetadataBytes / 2 ** 20),
    sink,
    onMessage: (message) => {
      unread -= message.read
      read += message.read
      onProgress?.(read)
      room?.()
    },
  })
  feed().catch((error: unknown) => thread.fail(error))
  try {
    const { index, map } = await thread.result({ signal })
    return { index: receiveLayerIndex(index), map: map === undefined ? undefined : parseBlobMap(map) }
  } catch (error) {
    if (!isOutOfMemory(error)) throw error
    throw new P2pfsError('invalid', `layer ${name}: reading it takes more memory than --max-layer-metadata allows`, {
      cause: error,
      layer: name,
    })
  } finally {
    ended = true
    room?.()
    iterator.return?.()?.catch(() => undefined)
  }
}

/** The bytes in an ArrayBuffer that holds nothing else, and can be transferred. */
function ownBuffer(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength
    ? (bytes as Uint8Array<ArrayBuffer>)
    : Uint8Array.from(bytes)
}
