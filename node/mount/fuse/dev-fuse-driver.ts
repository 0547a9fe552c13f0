import { write, writeSync, writevSync } from 'node:fs'
import { promisify } from 'node:util'
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads'
import { isP2pfsError } from '../../../protocol/errors.ts'
import type { Log } from '../../base/log.ts'
import { SingleFlight } from '../../base/single-flight.ts'
import { answer } from './answer.ts'
import { directoryNodeId, type BlockImage } from './block-image.ts'
import type { FuseDriver, ReadHandler } from './driver.ts'
import { imageFile, ImageNodes, type ServedImage } from './image-nodes.ts'
import {
  encodeNotifyInvalEntry,
  encodeNotifyInvalInode,
  encodeNotifyResend,
  encodeReply,
  errnos,
  maxReadBytes,
  opcodes,
  outHeaderBytes,
  parseRead,
  rootNodeId,
  writeOutHeader,
  type FuseRequest,
} from './protocol.ts'
import { ReadCounters, type Served } from './read-counters.ts'
import { readThrough } from './read-through.ts'
import type { FromWorker, MissedRead, ToWorker, WorkerSetup } from './worker.ts'

const writeAsync = promisify(write)

export interface DevFuseDriverParts {
  /** The descriptor of /dev/fuse that the mount was made with. */
  fd: number
  /** Whether another daemon has served this mount before. */
  resumed: boolean
  chunkDirectory: string
  log: Log
  /** A worker has ended: because it failed, or because the kernel says that the mount is gone. */
  lost: () => void
}

/**
 * Serves /dev/fuse itself: worker threads block in read(2) on it and answer reads of local chunks. A read of a chunk that is
 * not local comes to the main thread, and the worker is free again.
 *
 * The threads cannot be ended while they block, so a process that has started a driver ends by `SIGKILL` to itself once
 * its state is safe. The next process asks the kernel for the requests that it has left unanswered.
 */
export class DevFuseDriver implements FuseDriver {
  readonly #parts: DevFuseDriverParts
  readonly #threads: number
  readonly #nodes = new ImageNodes()
  readonly #ports: MessagePort[] = []
  readonly #generation = new Int32Array(new SharedArrayBuffer(4))
  readonly #shared: SharedArrayBuffer
  readonly #counters: ReadCounters
  readonly #reading = new Map<bigint, AbortController>()
  readonly #reopening = new SingleFlight<ServedImage | undefined>()

  constructor(parts: DevFuseDriverParts, { workers }: { workers: number }) {
    this.#parts = parts
    this.#threads = workers
    this.#shared = ReadCounters.allocate(workers)
    this.#counters = new ReadCounters(this.#shared, 0)
  }

  async start(handler: ReadHandler): Promise<void> {
    if (this.#parts.resumed) this.#resend()
    await Promise.all(Array.from({ length: this.#threads }, async (_, i) => await this.#startWorker(i + 1, handler)))
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
      this.#parts.log.warn(
        'requests that the last daemon left unanswered are lost; Linux 6.9 and later hand them out again',
        {
          error,
        },
      )
    }
  }

  async #startWorker(row: number, handler: ReadHandler): Promise<void> {
    const { port1, port2 } = new MessageChannel()
    const setup: WorkerSetup = {
      fd: this.#parts.fd,
      chunkDirectory: this.#parts.chunkDirectory,
      counters: this.#shared,
      row,
      generation: this.#generation.buffer,
      port: port2,
    }
    for (const image of this.#nodes.images()) port1.postMessage({ add: image } satisfies ToWorker)
    for (const { image } of this.#nodes.hidden()) port1.postMessage({ hide: image.name } satisfies ToWorker)
    for (const owned of this.#nodes.owners()) port1.postMessage({ owned } satisfies ToWorker)
    this.#ports.push(port1)
    port1.unref()
    // Raised for the images just posted; workers that have them already find nothing new.
    Atomics.add(this.#generation, 0, 1)
    const worker = new Worker(new URL('./worker.ts', import.meta.url), {
      workerData: setup,
      transferList: [port2],
    })
    worker.on('message', (message: FromWorker) => this.#receive(message, handler))
    worker.on('error', (error) => this.#parts.log.error('FUSE worker failed', { error }))
    worker.on('exit', () => this.#parts.lost())
    await new Promise<void>((resolve, reject) => worker.once('online', resolve).once('error', reject))
  }

  async add(image: BlockImage): Promise<void> {
    this.#nodes.add(image)
    this.#post({ add: image })
  }

  setOwners(name: string, uids: readonly number[]): void {
    this.#nodes.setOwners(name, uids)
    this.#post({ owned: { name, uids } })
  }

  async remove(name: string): Promise<boolean> {
    const served = this.#nodes.named(name)
    if (served === undefined) return true
    this.#hide(served)
    await this.#makeKernelForget(rootNodeId, name)
    // The kernel caches an image file for a mount in another namespace that has ended meanwhile.
    for (const { image } of this.#nodes.hidden()) await this.#makeKernelForget(image.nodeId, imageFile)
    // It may have it from the earlier daemon: it then says when it drops it.
    const isKept = this.#parts.resumed && (await this.#isInKernel(served.image))
    // It may have been dropped or added again meanwhile.
    if (this.#nodes.named(name) !== served || !served.isHidden || served.references > 0 || isKept) return false
    this.#delete(name)
    return true
  }

  counters(): { served: Served; errors: number } {
    return this.#counters.totals()
  }

  #hide(served: ServedImage): void {
    served.isHidden = true
    this.#post({ hide: served.image.name })
  }

  #delete(name: string): void {
    this.#nodes.delete(name)
    this.#post({ remove: name })
  }

  async #makeKernelForget(parent: number, name: string): Promise<void> {
    // In the thread pool: the kernel may make it wait for a lookup.
    await writeAsync(this.#parts.fd, encodeNotifyInvalEntry(parent, name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') this.#parts.log.debug('kernel keeps a name that is gone', { error, name })
    })
  }

  /** Whether the kernel has the directory or the file of an image, whoever told it. */
  async #isInKernel({ nodeId }: BlockImage): Promise<boolean> {
    const answers = await Promise.all(
      [nodeId, nodeId + 1].map(async (id) =>
        writeAsync(this.#parts.fd, encodeNotifyInvalInode(id)).then(
          () => true,
          (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
        ),
      ),
    )
    return answers.includes(true)
  }

  #post(message: ToWorker): void {
    for (const port of this.#ports) port.postMessage(message)
    Atomics.add(this.#generation, 0, 1)
  }

  #receive(message: FromWorker, handler: ReadHandler): void {
    if ('miss' in message) void this.#miss(message.miss, handler)
    else if ('unknown' in message) void this.#answerUnknown(message.unknown, handler)
    else if ('trigger' in message) handler.reachedTrigger(message.trigger.name, message.trigger.chunk)
    else if ('dropped' in message) this.#drop(message.dropped, handler)
    else this.#reading.get(message.interrupt)?.abort()
  }

  /** The kernel has given back all lookups of an image. */
  #drop(name: string, handler: ReadHandler): void {
    const served = this.#nodes.named(name)
    if (served === undefined || !served.isHidden || served.references > 0) return
    this.#delete(name)
    handler.dropped(name)
  }

  /**
   * Answers a request about an image that is not served: the kernel has it from an earlier daemon, or was faster than a
   * message.
   */
  async #answerUnknown(message: FuseRequest, handler: ReadHandler): Promise<void> {
    // A message between threads turns a buffer into a plain array.
    const request = { ...message, body: Buffer.from(message.body) }
    const { opcode, unique, nodeId } = request
    try {
      const served = this.#nodes.at(nodeId) ?? (await this.#reopen(directoryNodeId(nodeId), handler))
      if (served === undefined) return this.#fail(unique, errnos.EIO)
      if (opcode === opcodes.read) {
        const { image } = served
        const { offset, size } = parseRead(request.body)
        const available = Math.max(0, Math.min(size, image.sizeBytes - offset, maxReadBytes))
        return await this.#miss({ unique, name: image.name, offset, size: available }, handler)
      }
      const answered = answer(this.#nodes, request)
      if ('error' in answered) return this.#fail(unique, answered.error)
      if (!this.#send(unique, [encodeReply(unique, 0, answered.body)]) && opcode === opcodes.lookup)
        served.dereference(1)
    } catch (error) {
      this.#parts.log.warn('request for an image of an earlier daemon failed', { error })
      this.#fail(unique, errnos.EIO)
    }
  }

  async #reopen(nodeId: number, handler: ReadHandler): Promise<ServedImage | undefined> {
    const { signal } = new AbortController()
    return await this.#reopening.run(String(nodeId), signal, async () => {
      const image = await handler.reopen(nodeId)
      const served = this.#nodes.at(nodeId)
      if (image === undefined || served !== undefined) return served
      await this.add(image)
      const reopened = this.#nodes.at(nodeId)!
      this.#hide(reopened)
      this.#parts.log.info('image is served again: a mount of it stands in another namespace', { rootfs: image.name })
      return reopened
    })
  }

  async #miss({ unique, name, offset, size }: MissedRead, handler: ReadHandler): Promise<void> {
    const abort = new AbortController()
    this.#reading.set(unique, abort)
    const header = Buffer.alloc(outHeaderBytes)
    try {
      const served = this.#nodes.named(name)
      if (served === undefined) return this.#fail(unique, errnos.EIO)
      const pieces = await readThrough(served, { offset, size }, handler, this.#counters, abort.signal)
      writeOutHeader(header, outHeaderBytes + size, 0, unique)
      this.#send(unique, [header, ...pieces])
    } catch (error) {
      // The daemon stops: the kernel hands the read to the next one.
      if (isP2pfsError(error, 'closed')) return
      if (!abort.signal.aborted)
        this.#parts.log.warn('read failed: nobody delivers its data', { error, rootfs: `sha256:${name}`, offset })
      this.#fail(unique, abort.signal.aborted ? errnos.EINTR : errnos.EIO)
    } finally {
      this.#reading.delete(unique)
    }
  }

  #fail(unique: bigint, error: number): void {
    if (error === errnos.EIO) this.#counters.countError()
    this.#send(unique, [encodeReply(unique, error)])
  }

  /**
   * Replies to a request, with EIO if the kernel refuses the reply: without one its reader waits for good.
   * @returns whether it was sent
   */
  #send(unique: bigint, pieces: Uint8Array[]): boolean {
    try {
      writevSync(this.#parts.fd, pieces)
      return true
    } catch (error) {
      // ENOENT: the reader is gone.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
      this.#counters.countError()
      this.#parts.log.warn('reply to the kernel failed; its reader gets an I/O error', { error })
    }
    try {
      writeSync(this.#parts.fd, encodeReply(unique, errnos.EIO))
    } catch (error) {
      this.#parts.log.debug('error cannot be replied to the kernel', { error })
    }
    return false
  }
}
