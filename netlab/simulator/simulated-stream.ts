import type { Logger, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface'
import { AbstractStream } from '@libp2p/utils'
import type { Carrier } from './endpoint.ts'
import { Listeners } from './listeners.ts'

/** What one stream may have on its way before its sender waits (bytes): what a socket takes. */
const windowBytes = 512 * 1024
/** What a reader that is paused may leave unread (bytes): more than two of the product's windows, as yamux is told. */
const maxUnreadBytes = 64 * 1024 * 1024

type Data = StreamMessageEvent['data']

const silent: Logger = Object.assign(() => undefined, {
  error: () => undefined,
  trace: () => undefined,
  enabled: false,
  newScope: () => silent,
})

/** One end of a stream of libp2p over a modelled connection. */
export class SimulatedStream extends AbstractStream {
  /** Made when it is used first, which the constructor of libp2p does. */
  declare listeners?: Listeners
  readonly #connection: Carrier<SimulatedStream>
  #other: SimulatedStream | undefined
  #onItsWayBytes = 0

  constructor(connection: Carrier<SimulatedStream>, id: string, protocol: string, direction: 'inbound' | 'outbound') {
    super({ id, protocol, direction, log: silent, maxReadBufferLength: maxUnreadBytes, inactivityTimeout: Infinity })
    this.#connection = connection
  }

  static pair(
    near: Carrier<SimulatedStream>,
    far: Carrier<SimulatedStream>,
    id: string,
    protocol: string,
  ): SimulatedStream[] {
    const ends = [
      new SimulatedStream(near, id, protocol, 'outbound'),
      new SimulatedStream(far, id, protocol, 'inbound'),
    ] as const
    ends[0].#other = ends[1]
    ends[1].#other = ends[0]
    near.streams.push(ends[0])
    far.streams.push(ends[1])
    return [...ends]
  }

  // Events take a tenth of the memory of EventTarget's.
  override addEventListener(...[type, listener, options]: Parameters<AbstractStream['addEventListener']>): void {
    this.listeners ??= new Listeners()
    this.listeners.add(type, listener, options as { once?: boolean })
    if (type === 'message' && this.readBuffer.byteLength > 0) queueMicrotask(() => this.dispatchReadBuffer())
  }

  override removeEventListener(...[type, listener]: Parameters<AbstractStream['removeEventListener']>): void {
    if (listener) this.listeners?.remove(type, listener)
  }

  override listenerCount(type: string): number {
    return this.listeners?.count(type) ?? 0
  }

  override dispatchEvent(event: Event): boolean {
    this.listeners?.tell(event)
    return true
  }

  override async *[Symbol.asyncIterator](): AsyncGenerator<Data> {
    if (this.readStatus !== 'readable' && this.readStatus !== 'paused') return
    const arrived: Data[] = []
    let end: { error?: Error | undefined } | undefined
    let wake: () => void = () => undefined
    const onMessage = (event: Event): void => {
      arrived.push((event as StreamMessageEvent).data)
      wake()
    }
    const onEnd = (event: Event): void => {
      end ??= { error: (event as StreamCloseEvent).error }
      wake()
    }
    this.addEventListener('message', onMessage)
    this.addEventListener('close', onEnd)
    this.addEventListener('remoteCloseWrite', onEnd)
    try {
      for (;;) {
        for (let data = arrived.shift(); data !== undefined; data = arrived.shift()) yield data
        if (end !== undefined) break
        await new Promise<void>((resolve) => (wake = resolve))
      }
      if (end.error !== undefined) throw end.error
    } finally {
      this.removeEventListener('message', onMessage)
      this.removeEventListener('close', onEnd)
      this.removeEventListener('remoteCloseWrite', onEnd)
    }
  }

  override sendData(data: Parameters<AbstractStream['sendData']>[0]): { sentBytes: number; canSendMore: boolean } {
    const bytes = data.byteLength
    this.#onItsWayBytes += bytes
    this.#connection.count(this.protocol)
    this.#connection.send(
      bytes,
      () => this.#other?.onData(data),
      () => {
        this.#onItsWayBytes -= bytes
        if (this.#onItsWayBytes < windowBytes && this.writableNeedsDrain) this.onMuxerDrain()
      },
    )
    return { sentBytes: bytes, canSendMore: this.#onItsWayBytes < windowBytes }
  }

  override sendReset(): void {
    this.#connection.send(0, () => {
      const other = this.#other
      other?.onRemoteReset()
      if (other !== undefined) other.#forget()
    })
    this.#forget()
  }

  override async sendCloseWrite(): Promise<void> {
    this.#connection.send(0, () => {
      const other = this.#other
      other?.onRemoteCloseWrite()
      if (other !== undefined) other.#forgetIfOver()
    })
    queueMicrotask(() => this.#forgetIfOver())
    await Promise.resolve()
  }

  override async sendCloseRead(): Promise<void> {
    this.#connection.send(0, () => this.#other?.onRemoteCloseRead())
    await Promise.resolve()
  }

  // Windows are not modelled: what a paused reader has not taken is bounded by what the product asks for.
  override sendPause(): void {}
  override sendResume(): void {}

  #forgetIfOver(): void {
    if (this.status !== 'open' && this.status !== 'closing') this.#forget()
  }

  #forget(): void {
    const { streams } = this.#connection
    const at = streams.indexOf(this)
    if (at >= 0) streams.splice(at, 1)
  }
}
