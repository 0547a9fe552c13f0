import { createHash } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import { encodeBlobMap } from '../../protocol/blob-map.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { encodeLayerIndex } from '../../protocol/layer-index.ts'
import { Checkpointer, checkpointSpacingBytes } from './checkpointer.ts'
import { decompress } from './decompress.ts'
import { LayerIndexer } from './layer-indexer.ts'
import type { LayerLimits } from './layer-limits.ts'

/** What the worker is started with: the digests that must come out, where they are known, and the limits. */
export interface LayerWorkerSetup {
  digest: Digest | undefined
  diffId: Digest | undefined
  limits: LayerLimits
}

export type ToLayerWorker = { bytes: Uint8Array } | { end: true } | { stored: number }

/** Encoded. Only blobs of a registry have a map. */
interface ReadLayer {
  index: Uint8Array<ArrayBuffer>
  map: Uint8Array<ArrayBuffer> | undefined
}

export type FromLayerWorker =
  | { read: number }
  | { chunk: { id: number; digest: Digest; bytes: Uint8Array<ArrayBuffer> } }
  | ReadLayer
  | { error: { code: string | undefined; message: string; details: Record<string, unknown> } }

const port = parentPort!
const setup = workerData as LayerWorkerSetup
const input: (Uint8Array | undefined)[] = []
const puts = new Map<number, PromiseWithResolvers<void>>()
let wake: (() => void) | undefined

port.on('message', (message: ToLayerWorker) => {
  if ('stored' in message) {
    puts.get(message.stored)?.resolve()
    puts.delete(message.stored)
  } else {
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
    port.postMessage({ read: bytes.length } satisfies FromLayerWorker)
    yield bytes
  }
}

let nextId = 0
const sink = {
  put: async (digest: Digest, bytes: Uint8Array): Promise<void> => {
    const id = nextId++
    const kept = Promise.withResolvers<void>()
    puts.set(id, kept)
    const owned = bytes as Uint8Array<ArrayBuffer>
    port.postMessage({ chunk: { id, digest, bytes: owned } } satisfies FromLayerWorker, [owned.buffer])
    await kept.promise
  },
}

const indexer = new LayerIndexer(sink, setup.limits)
// A layer that no registry has is never read again, so it needs no checkpoints.
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
  if (checkpointer === undefined) return { index: encodeLayerIndex(index), map: undefined }
  const map = encodeBlobMap({
    ...(await checkpointer.finish()),
    digest: parseDigest(digest),
    diffId: index.diffId,
    sizeBytes: compressedBytes,
    tarBytes: index.tarBytes,
    pieces: indexer.pieces,
  })
  return { index: encodeLayerIndex(index), map }
}

main().then(
  ({ index, map }) =>
    port.postMessage({ index, map } satisfies FromLayerWorker, [
      index.buffer,
      ...(map === undefined ? [] : [map.buffer]),
    ]),
  (error: unknown) => {
    const { code, message, details } = isP2pfsError(error)
      ? error
      : { code: undefined, message: (error as Error).message, details: {} }
    // Errors of the compressed stream do not name the entry that was being read.
    const entry = indexer.entry === undefined ? {} : { entry: indexer.entry }
    port.postMessage({ error: { code, message, details: { ...entry, ...details } } } satisfies FromLayerWorker)
  },
)
