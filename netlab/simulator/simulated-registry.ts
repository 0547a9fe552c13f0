import type { Digest } from '../../protocol/digest.ts'
import { defaultLimits, RequestGate } from '../../node/registry/request-gate.ts'
import type { RangeReadOptions, SeekableSegment } from '../../node/layers/seekable-segment.ts'
import { streamRate, Uplink, Worker } from './link.ts'
import type { RegistryModel } from './model.ts'
import type { SimulatedHost } from './simulated-host.ts'
import type { SimulatedImage } from './simulated-image.ts'
import type { VirtualClock } from './virtual-clock.ts'

/** Bytes of an HTTP request or of the head of its answer, with those of the connection. */
const headBytes = 800

/** One chunk that the registry has sent. */
export interface RegistryRead {
  host: number
  digest: Digest
  bytes: number
  atMs: number
}

/** A registry behind a link, with a limit of requests. */
export class SimulatedRegistry {
  readonly #clock: VirtualClock
  readonly #model: RegistryModel
  readonly #image: SimulatedImage
  readonly #uplink: Uplink
  readonly #admission: Worker
  /** Called for each chunk that is sent. */
  onRead: (read: RegistryRead) => void = () => undefined
  requests = 0
  isCut = false

  constructor(clock: VirtualClock, model: RegistryModel, image: SimulatedImage) {
    this.#clock = clock
    this.#model = model
    this.#image = image
    this.#uplink = new Uplink(clock, streamRate(model.bitsPerSecond))
    this.#admission = new Worker(clock)
  }

  get sentBytes(): number {
    return this.#uplink.sentBytes
  }

  /** The registry as one host sees it: the product's gate stands before its requests. */
  clientOf(host: SimulatedHost): { seekable: (table: Digest) => Promise<SeekableSegment | undefined> } {
    const clock = this.#clock
    const sleep = async (ms: number): Promise<void> => await new Promise((resolve) => void clock.after(ms, resolve))
    const gate = new RequestGate(
      { clock: { now: clock.now, random: Math.random, sleep } },
      { host: 'registry', ...defaultLimits },
    )
    return {
      seekable: async (table) => {
        await Promise.resolve()
        return this.#segment(table, host, gate)
      },
    }
  }

  #segment(id: Digest, host: SimulatedHost, gate: RequestGate): SeekableSegment | undefined {
    const table = this.#image.tableOf(id)
    if (table === undefined) return undefined
    const { ratio } = this.#image.shape
    const range = (tarStart: number, tarEnd: number): ReturnType<SeekableSegment['join']> => ({
      start: Math.floor(tarStart / ratio),
      end: Math.ceil(tarEnd / ratio),
      tarStart,
      tarEnd,
    })
    return {
      table,
      rangeOf: (index) => range(table.offsets[index]!, table.offsets[index + 1]!),
      join: (first, last) => range(first.tarStart, last.tarEnd),
      read: async ({ start, end, tarStart, tarEnd }, { signal, urgency }: RangeReadOptions) => {
        const leave = await gate.enter({ urgency, signal })
        try {
          await this.#request(end - start, host, signal)
        } finally {
          leave()
        }
        const chunks: { index: number; bytes: Uint8Array }[] = []
        for (let index = table.indexOf(tarStart); index < table.count && table.offsets[index + 1]! <= tarEnd; index++) {
          const digest = table.digestAt(index)
          const bytes = this.#image.contentOf(digest)
          if (bytes === undefined) continue
          this.onRead({ host: host.index, digest, bytes: bytes.length / ratio, atMs: this.#clock.now() })
          chunks.push({ index, bytes: bytes.slice() })
        }
        return chunks
      },
    }
  }

  /** One request, until its last byte has come: a turn, the first byte, the registry's link, the host's link and CPU. */
  async #request(bytes: number, host: SimulatedHost, signal: AbortSignal): Promise<void> {
    const { requestsPerSecond, firstByteMs } = this.#model
    this.requests++
    const connection = {}
    const done = Promise.withResolvers<void>()
    const onAbort = (): void => {
      this.#uplink.drop(connection)
      done.reject(signal.reason as Error)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    this.#admission.do(1000 / requestsPerSecond, () =>
      this.#clock.after(firstByteMs, () => {
        if (this.isCut || signal.aborted) return
        const size = bytes + headBytes
        this.#uplink.send(connection, size, (leftAtMs) => host.download(undefined, size, leftAtMs, done.resolve))
      }),
    )
    try {
      await done.promise
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }
}
