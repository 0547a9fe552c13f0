import { write, writeSync, writevSync } from 'node:fs'
import { promisify } from 'node:util'
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads'
import type { Log } from '../../base/log.ts'
import type { BlockImage } from './block-image.ts'
import type { FuseDriver, OnMark, OnMiss } from './driver.ts'
import {
  encodeNotifyInvalEntry,
  encodeNotifyResend,
  encodeReply,
  errnos,
  outHeaderBytes,
  writeOutHeader,
} from './protocol.ts'
import type { FromWorker, ToWorker, WorkerSetup } from './worker.ts'
import { readThrough } from './read-through.ts'
import { ReadCounters, type Served } from './read-counters.ts'

const writeAsync = promisify(write)

export interface DevFuseDriverParts {
  /** The descriptor of /dev/fuse that the mount was made with. */
  fd: number
  /** Another daemon has served this mount before. */
  resumed: boolean
  chunkDirectory: string
  onMiss: OnMiss
  onMark: OnMark
  log: Log
}

/**
 * FUSE on /dev/fuse itself: worker threads that block in read(2) on it and answer what is local; what is not comes to
 * the main thread, and the worker is free again.
 *
 * The threads cannot be ended while they block, so a process that has started a driver ends by `SIGKILL` to itself
 * once its state is safe; the next one asks the kernel for the requests it leaves behind.
 */
export class DevFuseDriver implements FuseDriver {
  readonly #parts: DevFuseDriverParts
  readonly #threads: number
  readonly #images = new Map<string, BlockImage>()
  readonly #ports: MessagePort[] = []
  readonly #generation = new Int32Array(new SharedArrayBuffer(4))
  readonly #shared: SharedArrayBuffer
  readonly #counters: ReadCounters
  readonly #reading = new Map<bigint, AbortController>()

  constructor(parts: DevFuseDriverParts, { workers }: { workers: number }) {
    this.#parts = parts
    this.#threads = workers
    this.#shared = ReadCounters.allocate(workers)
    this.#counters = new ReadCounters(this.#shared, 0)
  }

  async start(): Promise<void> {
    if (this.#parts.resumed) this.#resend()
    await Promise.all(Array.from({ length: this.#threads }, async (_, i) => await this.#startWorker(i + 1)))
  }

  /** The mount is the supervisor's, and the workers end with the process. */
  async stop(): Promise<void> {
    // Nothing to do.
  }

  /** Before Linux 6.9 the kernel does not know the message: requests that were under way then fail. */
  #resend(): void {
    try {
      writeSync(this.#parts.fd, encodeNotifyResend())
    } catch (error) {
      this.#parts.log.warn('kernel cannot hand out again what the last daemon left unanswered; it takes Linux 6.9', {
        error,
      })
    }
  }

  async #startWorker(row: number): Promise<void> {
    const { port1, port2 } = new MessageChannel()
    const setup: WorkerSetup = {
      fd: this.#parts.fd,
      chunkDirectory: this.#parts.chunkDirectory,
      counters: this.#shared,
      row,
      generation: this.#generation.buffer,
      port: port2,
    }
    for (const image of this.#images.values()) port1.postMessage({ add: image } satisfies ToWorker)
    this.#ports.push(port1)
    port1.unref()
    // Raised for the images just posted; workers that have them already find nothing new.
    Atomics.add(this.#generation, 0, 1)
    const worker = new Worker(new URL('./worker.ts', import.meta.url), {
      workerData: setup,
      transferList: [port2],
    })
    worker.on('message', (message: FromWorker) => this.#receive(message))
    worker.on('error', (error) => {
      this.#parts.log.error('FUSE worker failed; the daemon is replaced', { error })
      process.kill(process.pid, 'SIGKILL')
    })
    // A worker ends when the kernel says ENODEV: then there is nothing to serve until the supervisor has mounted again.
    worker.on('exit', () => {
      this.#parts.log.error('FUSE filesystem is gone; the daemon is replaced')
      process.kill(process.pid, 'SIGKILL')
    })
    await new Promise<void>((resolve, reject) => worker.once('online', resolve).once('error', reject))
  }

  async add(image: BlockImage): Promise<void> {
    for (const { name, nodeId } of this.#images.values()) {
      if (name !== image.name && nodeId === image.nodeId) throw new TypeError(`two images with node id ${nodeId}`)
    }
    this.#images.set(image.name, image)
    this.#post({ add: image })
  }

  async remove(name: string): Promise<void> {
    this.#images.delete(name)
    this.#post({ remove: name })
    // In the thread pool: the kernel may make it wait for a lookup.
    await writeAsync(this.#parts.fd, encodeNotifyInvalEntry(name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') this.#parts.log.debug('kernel keeps a name that is gone', { error, name })
    })
  }

  counters(): { served: Served } {
    return { served: this.#counters.totals() }
  }

  #post(message: ToWorker): void {
    for (const port of this.#ports) port.postMessage(message)
    Atomics.add(this.#generation, 0, 1)
  }

  #receive(message: FromWorker): void {
    if ('miss' in message) void this.#miss(message.miss)
    else if ('mark' in message) this.#parts.onMark(message.mark.name, message.mark.chunk)
    else this.#reading.get(message.interrupt)?.abort()
  }

  async #miss({
    unique,
    name,
    offset,
    size,
  }: {
    unique: bigint
    name: string
    offset: number
    size: number
  }): Promise<void> {
    const abort = new AbortController()
    this.#reading.set(unique, abort)
    const header = Buffer.alloc(outHeaderBytes)
    try {
      const image = this.#images.get(name)
      if (image === undefined) return this.#send([encodeReply(unique, errnos.EIO)])
      const pieces = await readThrough(image, offset, size, this.#parts.onMiss, this.#counters, abort.signal)
      writeOutHeader(header, outHeaderBytes + size, 0, unique)
      this.#send([header, ...pieces])
    } catch (error) {
      if (!abort.signal.aborted)
        this.#parts.log.warn('read failed: nobody delivers its data', { error, rootfs: name, offset })
      this.#send([encodeReply(unique, abort.signal.aborted ? errnos.EINTR : errnos.EIO)])
    } finally {
      this.#reading.delete(unique)
    }
  }

  #send(pieces: Uint8Array[]): void {
    try {
      writevSync(this.#parts.fd, pieces)
    } catch (error) {
      // ENOENT: the reader is gone.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#parts.log.warn('reply to the kernel failed', { error })
    }
  }
}
