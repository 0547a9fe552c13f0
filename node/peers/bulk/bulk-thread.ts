import { Worker } from 'node:worker_threads'
import type { Log } from '../../base/log.ts'

/** Bound on the heap of a thread (MiB): its buffers are outside of it. */
const heapMb = 64

/** A thread for bulk transfers. It is started when it is needed, and anew when it was lost. */
export class BulkThread<To, From> {
  readonly #file: URL
  readonly #log: Log
  readonly #events: { onMessage: (message: From) => void; onLost: () => void }
  #worker: Worker | undefined
  #isStopped = false

  constructor(
    { file, log }: { file: URL; log: Log },
    events: { onMessage: (message: From) => void; onLost: () => void },
  ) {
    this.#file = file
    this.#log = log
    this.#events = events
  }

  get isRunning(): boolean {
    return this.#worker !== undefined
  }

  /** Starts the thread, unless it runs. */
  start(workerData: unknown): void {
    if (this.#worker !== undefined || this.#isStopped) return
    const worker = new Worker(this.#file, { workerData, resourceLimits: { maxOldGenerationSizeMb: heapMb } })
    this.#worker = worker
    worker.on('message', (message: From) => {
      if (this.#worker === worker) this.#events.onMessage(message)
    })
    worker.on('error', (error) => this.#log.error('thread for bulk transfers failed; libp2p carries chunks', { error }))
    worker.on('exit', () => {
      if (this.#worker !== worker) return
      this.#worker = undefined
      this.#events.onLost()
    })
    // The thread keeps the process alive until its first message, since somebody waits for that; after that it does not.
    worker.once('message', () => worker.unref())
  }

  post(message: To): void {
    this.#worker?.postMessage(message)
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    const worker = this.#worker
    this.#worker = undefined
    await worker?.terminate()
  }
}
