import { parentPort, workerData } from 'node:worker_threads'
import { encodeBlobMap } from '../../protocol/blob-map.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { BlobDigest } from './blob-digest.ts'
import { Checkpointer, checkpointSpacingBytes } from './checkpointer.ts'
import { decompress, type DecompressObserver } from './decompress.ts'
import { LayerIndexer } from './layer-indexer.ts'
import type { LayerLimits } from './layer-limits.ts'
import { RawIndexer } from './raw/raw-indexer.ts'
import {
  sendError,
  sendLayerIndex,
  type ChunkThreadSetup,
  type FromChunkThread,
  type SentError,
  type SentLayerIndex,
  type ToChunkThread,
} from './thread/messages.ts'
import { ThreadSink } from './thread/thread-sink.ts'

/**
 * The worker's input: a name for errors, the digests that must come out where they are known, the limits.
 */
export interface LayerWorkerSetup {
  name: string
  digest: Digest | undefined
  diffId: Digest | undefined
  /** Whether it is a layer of a raw image, and no tar. */
  isRaw: boolean
  limits: LayerLimits
}

export type ToLayerWorker = { bytes: Uint8Array } | { end: true } | ToChunkThread

/** The worker has read so many bytes more of the blob. */
export interface LayerBytesRead {
  read: number
}

export interface ReadLayer {
  index: SentLayerIndex
  /** Encoded. Only blobs of a registry have a map. */
  map: Uint8Array<ArrayBuffer> | undefined
}

/** The other thread is told that the worker has read on at least so often (bytes): a part of what it may be ahead. */
const tellBytes = 256 * 1024

const port = parentPort!
const setup = workerData as LayerWorkerSetup & ChunkThreadSetup
const sink = new ThreadSink(setup.files)
const input: (Uint8Array | undefined)[] = []
let wake: (() => void) | undefined

port.on('message', (message: ToLayerWorker) => {
  if ('bytes' in message || 'end' in message) {
    input.push('bytes' in message ? message.bytes : undefined)
    wake?.()
  } else sink.handle(message)
})

const blobDigest = new BlobDigest()
let compressedBytes = 0
/** Bytes that the other thread has not been told of. */
let untoldBytes = 0

function tellRead(): void {
  if (untoldBytes > 0) port.postMessage({ message: { read: untoldBytes } satisfies LayerBytesRead })
  untoldBytes = 0
}

async function* compressed(): AsyncGenerator<Uint8Array> {
  for (;;) {
    while (input.length === 0) {
      tellRead()
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
    const bytes = input.shift()
    if (bytes === undefined) return
    if (setup.digest !== undefined) blobDigest.update(bytes)
    compressedBytes += bytes.length
    untoldBytes += bytes.length
    if (untoldBytes >= tellBytes) tellRead()
    yield bytes
  }
}

// A layer that no registry has is never read again, so it needs no map.
const indexer = setup.isRaw
  ? new RawIndexer(sink, setup.limits)
  : new LayerIndexer(sink, setup.limits, { keepsPieces: setup.digest !== undefined, buffers: sink.buffers })
const checkpointer =
  setup.digest === undefined
    ? undefined
    : new Checkpointer({ sink, pieces: indexer.pieces }, { spacingBytes: checkpointSpacingBytes })
const observer: DecompressObserver = {
  start: (compression) => {
    blobDigest.start(compression)
    checkpointer?.start(compression)
  },
  compressed: (bytes) => checkpointer?.compressed(bytes),
  frame: (byteOffset) => checkpointer?.frame(byteOffset),
}

async function main(): Promise<ReadLayer> {
  const source = compressed()
  for await (const bytes of decompress(source, observer)) {
    checkpointer?.output(bytes)
    await indexer.push(bytes)
  }
  const index = await indexer.finish()
  // Bytes that the decompressor leaves unread count for the digest too.
  for await (const rest of source) void rest
  if (checkpointer === undefined) return { index: sendLayerIndex(index), map: undefined }
  const digest = blobDigest.digest(index.diffId)
  if (digest !== setup.digest) throw new P2pfsError('invalid', `its bytes have another digest: ${digest}`)
  if (index.diffId !== setup.diffId)
    throw new P2pfsError('invalid', `uncompressed it is ${index.diffId}; the image config says ${setup.diffId}`)
  const map = encodeBlobMap({
    ...(await checkpointer.finish()),
    digest,
    diffId: index.diffId,
    sizeBytes: compressedBytes,
    tarBytes: index.tarBytes,
    pieces: indexer.pieces,
  })
  return { index: sendLayerIndex(index), map }
}

/** The error with the name of the layer, and of the entry: errors of the compressed stream do not have it. */
function named({ code, message, details }: SentError): SentError {
  const { entry = indexer.entry } = details
  const place = typeof entry === 'string' ? `, entry ${JSON.stringify(entry)}` : ''
  return {
    code,
    message: `layer ${setup.name}${place}: ${message}`,
    details: { ...details, ...(entry === undefined ? {} : { entry }), layer: setup.name },
  }
}

main().then(
  (result) => {
    sink.flush()
    port.postMessage(
      { result } satisfies FromChunkThread<ReadLayer>,
      result.map === undefined ? [] : [result.map.buffer],
    )
  },
  (error: unknown) => {
    port.postMessage({ error: named(sendError(error)) } satisfies FromChunkThread<ReadLayer>)
  },
)
