import { parentPort } from 'node:worker_threads'
import type { Digest } from '../../../protocol/digest.ts'
import { ChunkFileWriter } from '../../base/chunk-file-writer.ts'
import type { ChunkFate, ChunkSink } from '../../model/chunk-sink.ts'
import { ChunkBuffers } from '../chunk-buffers.ts'
import type { ChunksMade, FromChunkThread, ThreadFiles, ToChunkThread } from './messages.ts'

interface Pending {
  digest: Digest
  bytes: Uint8Array
  kept: PromiseWithResolvers<void>
}

/**
 * The sink of a thread that makes chunks. It asks the thread that has started this one what becomes of each chunk, many
 * at a time, and writes their files itself, so that the bytes stay here. Where there are no files all bytes are sent.
 */
export class ThreadSink implements ChunkSink {
  /** The buffers of chunks that have been kept, to be used again. */
  readonly buffers = new ChunkBuffers()
  readonly #files: ThreadFiles | undefined
  readonly #writer: ChunkFileWriter | undefined
  readonly #pending = new Map<number, Pending>()
  readonly #byDigest = new Map<Digest, Pending>()
  #nextId = 0
  #made: ChunksMade = { asked: [], written: [] }
  #isPlanned = false
  /** The disk has refused a file. */
  #isRefused = false

  constructor(files: ThreadFiles | undefined) {
    this.#files = files
    this.#writer = files?.writing === undefined ? undefined : new ChunkFileWriter(files.writing)
  }

  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const same = this.#byDigest.get(digest)
    if (same !== undefined) {
      this.buffers.give(bytes)
      return await same.kept.promise
    }
    const id = this.#nextId++
    const pending = { digest, bytes, kept: Promise.withResolvers<void>() }
    this.#pending.set(id, pending)
    this.#byDigest.set(digest, pending)
    if (this.#files === undefined) this.#send(id, pending)
    else {
      this.#made.asked.push({ id, digest, lengthBytes: bytes.length })
      this.#plan()
    }
    await pending.kept.promise
  }

  handle(message: ToChunkThread): void {
    if ('stored' in message) this.#end(message.stored)
    else for (const { id, fate } of message.fates) this.#follow(id, fate)
  }

  /** Tells of all that has been written. */
  flush(): void {
    this.#isPlanned = false
    if (this.#made.asked.length === 0 && this.#made.written.length === 0) return
    parentPort!.postMessage({ made: this.#made } satisfies FromChunkThread<never>)
    this.#made = { asked: [], written: [] }
  }

  #plan(): void {
    if (this.#isPlanned) return
    this.#isPlanned = true
    setImmediate(() => this.flush())
  }

  #follow(id: number, fate: ChunkFate): void {
    if (this.#isRefused) return
    const pending = this.#pending.get(id)!
    if (fate === 'send') return this.#send(id, pending)
    const { digest, bytes } = pending
    if (fate === 'write') {
      try {
        const changedAtMs = this.#writer!.write(digest, bytes)
        this.#made.written.push({ digest, lengthBytes: bytes.length, changedAtMs })
      } catch (error) {
        // The other thread ends this one. Until then nothing more is written: there may be room, which is for others.
        this.#isRefused = true
        const { message, code } = error as NodeJS.ErrnoException
        parentPort!.postMessage({ unwritable: { message, errno: code } } satisfies FromChunkThread<never>)
        return
      }
      this.#plan()
    }
    this.buffers.give(bytes)
    this.#end(id)
  }

  /** The bytes go with their memory. */
  #send(id: number, { digest, bytes }: Pending): void {
    const isOwn = bytes.byteLength === bytes.buffer.byteLength
    const sent = isOwn ? (bytes as Uint8Array<ArrayBuffer>) : Uint8Array.from(bytes)
    if (!isOwn) this.buffers.give(bytes)
    parentPort!.postMessage({ chunk: { id, digest, bytes: sent } } satisfies FromChunkThread<never>, [sent.buffer])
  }

  #end(id: number): void {
    const { digest, kept } = this.#pending.get(id)!
    this.#pending.delete(id)
    this.#byDigest.delete(digest)
    kept.resolve()
  }
}
