import { Worker, type Transferable } from 'node:worker_threads'
import { orAbort } from '../../base/single-flight.ts'
import type { ChunkFiles, ChunkSink } from '../../model/chunk-sink.ts'
import {
  receiveError,
  type ChunksMade,
  type ChunkThreadSetup,
  type FromChunkThread,
  type ToChunkThread,
} from './messages.ts'

/** The thread's young generation, MiB. A small one frees buffers outside the heap soon. */
const youngGenerationMb = 3

export interface ChunkThreadOptions<Message> {
  workerData: object
  /** Bound on the thread's heap, MiB. */
  heapMb: number
  sink: ChunkSink
  /** Gets the messages that are neither chunks nor the outcome. */
  onMessage?: (message: Message) => void
}

/** A thread that makes chunks for a sink of this thread, and ends with a result. */
export class ChunkThread<Result, Message = never> {
  readonly #worker: Worker
  readonly #outcome = Promise.withResolvers<Result>()
  readonly #sink: ChunkSink
  readonly #files: ChunkFiles | undefined
  #ended = false

  constructor(file: URL, { workerData, heapMb, sink, onMessage }: ChunkThreadOptions<Message>) {
    this.#sink = sink
    this.#files = sink.openFiles?.()
    this.#worker = new Worker(file, {
      workerData: {
        ...workerData,
        ...(this.#files && { files: { writing: this.#files.writing } }),
      } satisfies ChunkThreadSetup,
      resourceLimits: { maxOldGenerationSizeMb: heapMb, maxYoungGenerationSizeMb: youngGenerationMb },
    })
    this.#outcome.promise.catch(() => undefined)
    this.#worker.on('message', (message: FromChunkThread<Result> | { message: Message }) => {
      if (this.#ended) return
      if ('chunk' in message) void this.#keep(message.chunk)
      else if ('made' in message) void this.#made(message.made)
      else if ('unwritable' in message) void this.#unwritable(message.unwritable)
      else if ('result' in message) this.#outcome.resolve(message.result)
      else if ('error' in message) this.#outcome.reject(receiveError(message.error))
      else onMessage?.(message.message)
    })
    this.#worker.on('error', (error) => this.fail(error))
    this.#worker.on('exit', () => this.fail(new Error(`the thread of ${file.pathname} has ended`)))
  }

  post(message: unknown, transfer: readonly Transferable[] = []): void {
    if (!this.#ended) this.#worker.postMessage(message, transfer)
  }

  /** Makes {@link result} throw. */
  fail(error: unknown): void {
    this.#outcome.reject(error)
  }

  /**
   * Waits for the end of the thread.
   * @throws the thread's error with code and details; the sink's error; ERR_WORKER_OUT_OF_MEMORY
   */
  async result({ signal }: { signal: AbortSignal }): Promise<Result> {
    return await orAbort(this.#outcome.promise, signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true
    await this.#worker.terminate()
    await this.#files?.[Symbol.asyncDispose]()
  }

  async #made({ asked, written }: ChunksMade): Promise<void> {
    const files = this.#files!
    try {
      if (written.length > 0) files.adopt(written)
      if (asked.length === 0) return
      const fates = await Promise.all(
        asked.map(async ({ id, digest, lengthBytes }) => ({ id, fate: await files.decide({ digest, lengthBytes }) })),
      )
      this.post({ fates } satisfies ToChunkThread)
    } catch (error) {
      this.fail(error)
    }
  }

  async #unwritable({ message, errno }: { message: string; errno: string | undefined }): Promise<void> {
    const cause = Object.assign(new Error(message), { code: errno })
    this.fail(await this.#files!.failed(cause).catch((error: unknown) => error))
  }

  async #keep({ id, digest, bytes }: Extract<FromChunkThread<Result>, { chunk: unknown }>['chunk']): Promise<void> {
    try {
      await this.#sink.put(digest, bytes)
      this.post({ stored: id } satisfies ToChunkThread)
    } catch (error) {
      this.fail(error)
    }
  }
}

export function isOutOfMemory(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY'
}
