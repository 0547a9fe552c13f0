import { createHash } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import { encodeBlobMap } from '../../protocol/blob-map.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { Checkpointer, checkpointSpacingBytes } from './checkpointer.ts'
import { decompress } from './decompress.ts'
import { LayerIndexer } from './layer-indexer.ts'
import type { LayerLimits } from './layer-limits.ts'
import { RawIndexer } from './raw/raw-indexer.ts'
import {
  sendError,
  sendLayerIndex,
  type ChunkStored,
  type FromChunkThread,
  type SentError,
  type SentLayerIndex,
} from './thread/messages.ts'
import { RemoteSink } from './thread/remote-sink.ts'

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

export type ToLayerWorker = { bytes: Uint8Array } | { end: true } | ChunkStored

/** The worker has read so many bytes more of the blob. */
export interface LayerBytesRead {
  read: number
}

export interface ReadLayer {
  index: SentLayerIndex
  /** Encoded. Only blobs of a registry have a map. */
  map: Uint8Array<ArrayBuffer> | undefined
}

const port = parentPort!
const setup = workerData as LayerWorkerSetup
const sink = new RemoteSink()
const input: (Uint8Array | undefined)[] = []
let wake: (() => void) | undefined

port.on('message', (message: ToLayerWorker) => {
  if ('stored' in message) sink.onStored(message)
  else {
    input.push('bytes' in message ? message.bytes : undefined)
    wake?.()
  }
})

const compressedHash = createHash('sha256')
let compressedBytes = 0

async function* compressed(): AsyncGenerator<Uint8Array> {
  for (;;) {
    while (input.length === 0) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
    const bytes = input.shift()
    if (bytes === undefined) return
    compressedHash.update(bytes)
    compressedBytes += bytes.length
    port.postMessage({ message: { read: bytes.length } satisfies LayerBytesRead })
    yield bytes
  }
}

// A layer that no registry has is never read again, so it needs no map.
const indexer = setup.isRaw
  ? new RawIndexer(sink, setup.limits)
  : new LayerIndexer(sink, setup.limits, { keepsPieces: setup.digest !== undefined })
const checkpointer =
  setup.digest === undefined
    ? undefined
    : new Checkpointer({ sink, pieces: indexer.pieces }, { spacingBytes: checkpointSpacingBytes })

async function main(): Promise<ReadLayer> {
  const source = compressed()
  for await (const bytes of decompress(source, checkpointer)) {
    checkpointer?.output(bytes)
    await indexer.push(bytes)
  }
  const index = await indexer.finish()
  // Bytes that the decompressor leaves unread count for the digest too.
  for await (const rest of source) void rest
  const digest = `sha256:${compressedHash.digest('hex')}`
  if (setup.digest !== undefined && digest !== setup.digest)
    throw new P2pfsError('invalid', `its bytes have another digest: ${digest}`)
  if (setup.diffId !== undefined && index.diffId !== setup.diffId)
    throw new P2pfsError('invalid', `uncompressed it is ${index.diffId}; the image config says ${setup.diffId}`)
  if (checkpointer === undefined) return { index: sendLayerIndex(index), map: undefined }
  const map = encodeBlobMap({
    ...(await checkpointer.finish()),
    digest: parseDigest(digest),
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
  (result) =>
    port.postMessage(
      { result } satisfies FromChunkThread<ReadLayer>,
      result.map === undefined ? [] : [result.map.buffer],
    ),
  (error: unknown) => {
    port.postMessage({ error: named(sendError(error)) } satisfies FromChunkThread<ReadLayer>)
  },
)
