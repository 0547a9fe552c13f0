import { parentPort } from 'node:worker_threads'
import type { Digest } from '../../../protocol/digest.ts'
import type { ChunkSink } from '../../model/chunk-sink.ts'
import type { ChunkStored, FromChunkThread } from './messages.ts'

/** The sink of the thread that has started this one. Chunks are transferred: each has an ArrayBuffer of its own. */
export class RemoteSink implements ChunkSink {
  readonly #puts = new Map<number, () => void>()
  #nextId = 0

  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const id = this.#nextId++
    const kept = Promise.withResolvers<void>()
    this.#puts.set(id, kept.resolve)
    const owned = bytes as Uint8Array<ArrayBuffer>
    parentPort!.postMessage({ chunk: { id, digest, bytes: owned } } satisfies FromChunkThread<never>, [owned.buffer])
    await kept.promise
  }

  onStored({ stored }: ChunkStored): void {
    this.#puts.get(stored)?.()
    this.#puts.delete(stored)
  }
}
