import { Worker } from 'node:worker_threads'
import { digestBytes, digestFromBytes, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { rawChunkBytes } from '../../../protocol/raw-image.ts'
import type { ChunkFileWriting } from '../../base/chunk-file-writer.ts'
import { orAbort } from '../../base/single-flight.ts'
import { dataRanges } from './data-ranges.ts'
import type { FromRawThread, HashedBatch, RawThreadSetup, ToRawThread } from './thread-messages.ts'

/** Bound on the thread's heap (MiB): chunks and digests are outside of it. */
const heapMb = 64

/** Keeps the chunks of a raw image, whose files the thread writes. */
export interface RawChunkKeeper {
  /** @returns whether the chunk is missing; it is written then */
  claim: (digest: Digest) => boolean
  /** Takes over chunk files that were written. Resolves when more may be. */
  adopt: (chunks: { digest: Digest; lengthBytes: number }[]) => Promise<void>
}

export interface RawImageRead {
  /** Of all chunks, in order; 32 raw bytes each. */
  digests: Uint8Array
  sizeBytes: number
}

/**
 * Reads a raw image once, in a thread of its own, which hashes its chunks and writes those that are missing. What the
 * thread has in memory is bounded, and the same for all images. When this returns or throws, nothing is written any more.
 * @param file `sizeBytes`: undefined for a pipe, which does not block
 * @throws unavailable where the file cannot be read, or the disk refuses; what `keeper` throws; the signal's reason
 */
export async function readRawImage(
  { fd, name, sizeBytes }: { fd: number; name: string; sizeBytes: number | undefined },
  { keeper, writing }: { keeper: RawChunkKeeper; writing: ChunkFileWriting },
  { signal, onBytes }: { signal: AbortSignal; onBytes?: (doneBytes: number) => void },
): Promise<RawImageRead> {
  signal.throwIfAborted()
  const ranges = sizeBytes === undefined ? undefined : await dataRanges({ fd, sizeBytes }, { signal })
  const read = Promise.withResolvers<RawImageRead>()
  const worker = new Worker(new URL('./raw-thread.ts', import.meta.url), {
    workerData: { fd, sizeBytes, ranges, writing } satisfies RawThreadSetup,
    resourceLimits: { maxOldGenerationSizeMb: heapMb },
  })
  const missing = new Map<number, { digest: Digest; lengthBytes: number }[]>()
  const choose = ({ id, digests, lastLengthBytes }: HashedBatch): Uint8Array<ArrayBuffer> => {
    const count = digests.length / digestBytes
    const marks = new Uint8Array(count)
    const chunks = []
    for (let i = 0; i < count; i++) {
      const digest = digestFromBytes(digests, i * digestBytes)
      if (!keeper.claim(digest)) continue
      marks[i] = 1
      chunks.push({ digest, lengthBytes: i === count - 1 ? lastLengthBytes : rawChunkBytes })
    }
    missing.set(id, chunks)
    return marks
  }
  // Batches are adopted one after the other; the next is written when the disk has room for more.
  let adopted = Promise.resolve()
  const answer = async (batch: HashedBatch): Promise<void> => {
    await adopted
    worker.postMessage({ batch: batch.id, missing: choose(batch) } satisfies ToRawThread)
    onBytes?.(batch.doneBytes)
  }
  worker.on('message', (message: FromRawThread) => {
    if ('hashed' in message) answer(message.hashed).catch(read.reject)
    else if ('written' in message) {
      const chunks = missing.get(message.written)!
      missing.delete(message.written)
      adopted = adopted.then(async () => await keeper.adopt(chunks))
      adopted.catch(read.reject)
    } else if ('done' in message) adopted.then(() => read.resolve(message.done), read.reject)
    else read.reject(failure(message.failed, name))
  })
  worker.on('error', read.reject)
  // Its last word may still wait for the disk.
  worker.on('exit', () => {
    void adopted
      .finally(() => read.reject(new Error('the thread that reads a raw image has ended')))
      .catch(() => undefined)
  })
  read.promise.catch(() => undefined)
  try {
    return await orAbort(read.promise, signal)
  } finally {
    await worker.terminate()
    await adopted.catch(() => undefined)
  }
}

function failure({ message, errno, step }: Extract<FromRawThread, { failed: unknown }>['failed'], name: string): Error {
  const cause = Object.assign(new Error(message), errno === undefined ? {} : { code: errno })
  const what = step === 'read' ? `cannot read ${name}` : `cannot write the chunks of ${name}`
  return new P2pfsError('unavailable', `${what}: ${message}`, { cause })
}
