import { Worker } from 'node:worker_threads'
import { digestBytes, digestFromBytes } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { rawChunkBytes } from '../../../protocol/raw-image.ts'
import { orAbort } from '../../base/single-flight.ts'
import type { ChunkFiles } from '../../model/chunk-sink.ts'
import { dataRanges } from './data-ranges.ts'
import type { FromRawThread, HashedBatch, RawThreadFailure, RawThreadSetup, ToRawThread } from './thread-messages.ts'

/** Bound on the thread's heap (MiB): chunks and digests are outside of it. */
const heapMb = 64

export interface RawImageRead {
  /** The digests of all chunks, in order; 32 raw bytes each. */
  digests: Uint8Array
  sizeBytes: number
}

/**
 * Reads a raw image once, in a thread of its own, which hashes its chunks and writes those that are missing. The memory
 * of the thread is bounded, and the same for all images. When this returns or throws, nothing is written any more.
 * @param file `sizeBytes`: undefined for a pipe, which does not block
 * @param files takes the chunks; it is disposed of after this
 * @throws unavailable where the file cannot be read; what `files` throws; the signal's reason
 */
export async function readRawImage(
  { fd, name, sizeBytes }: { fd: number; name: string; sizeBytes: number | undefined },
  files: ChunkFiles,
  { signal, onBytes }: { signal: AbortSignal; onBytes?: (doneBytes: number) => void },
): Promise<RawImageRead> {
  signal.throwIfAborted()
  const ranges = sizeBytes === undefined ? undefined : await dataRanges({ fd, sizeBytes }, { signal })
  const read = Promise.withResolvers<RawImageRead>()
  const worker = new Worker(new URL('./raw-thread.ts', import.meta.url), {
    workerData: { fd, sizeBytes, ranges, writing: files.writing } satisfies RawThreadSetup,
    resourceLimits: { maxOldGenerationSizeMb: heapMb },
  })
  const choose = async ({ digests, lastLengthBytes }: HashedBatch): Promise<Uint8Array<ArrayBuffer>> => {
    const count = digests.length / digestBytes
    const marks = new Uint8Array(count)
    for (let i = 0; i < count; i++) {
      const lengthBytes = i === count - 1 ? lastLengthBytes : rawChunkBytes
      const fate = await files.decide({ digest: digestFromBytes(digests, i * digestBytes), lengthBytes })
      if (fate === 'write') marks[i] = 1
    }
    return marks
  }
  const answer = async (batch: HashedBatch): Promise<void> => {
    worker.postMessage({ batch: batch.id, missing: await choose(batch) } satisfies ToRawThread)
    onBytes?.(batch.doneBytes)
  }
  const fail = async ({ message, errno, step }: RawThreadFailure): Promise<Error> => {
    const cause = Object.assign(new Error(message), errno === undefined ? {} : { code: errno })
    if (step === 'write') return await files.failed(cause)
    return new P2pfsError('unavailable', `cannot read ${name}: ${message}`, { cause })
  }
  worker.on('message', (message: FromRawThread) => {
    if ('hashed' in message) answer(message.hashed).catch(read.reject)
    else if ('written' in message) files.adopt(message.written)
    else if ('done' in message) read.resolve(message.done)
    else fail(message.failed).then(read.reject, read.reject)
  })
  worker.on('error', read.reject)
  worker.on('exit', () => read.reject(new Error('the thread that reads a raw image has ended')))
  read.promise.catch(() => undefined)
  try {
    return await orAbort(read.promise, signal)
  } finally {
    await worker.terminate()
  }
}
