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

/** What the worker is started with: what the layer must turn out to be, where that is known. */
export interface LayerWorkerSetup {
  digest: Digest | undefined
  diffId: Digest | undefined
  limits: LayerLimits
}

export type ToLayerWorker =
  { bytes: Uint8Array } | { end: true } | { stored: number } | { failed: { id: number; message: string } }

/** Encoded; a map of what a registry has only. */
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
  } else if ('failed' in message) {
    puts.get(message.failed.id)?.reject(new P2pfsError('unavailable', message.failed.message))
    puts.delete(message.failed.id)
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
// A layer that no registry has is never read again: its windows would be for nobody.
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
  // What a decompressor leaves unread still counts for the digest.
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
    // What is wrong with the compressed stream does not know where in the tar it is.
    const entry = indexer.entry === undefined ? {} : { entry: indexer.entry }
    port.postMessage({ error: { code, message, details: { ...entry, ...details } } } satisfies FromLayerWorker)
  },
)
