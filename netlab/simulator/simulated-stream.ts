import type { Logger, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface'
import { AbstractStream } from '@libp2p/utils'
import { Uint8ArrayList } from 'uint8arraylist'
import type { Carrier } from './endpoint.ts'
import { Listeners } from './listeners.ts'

/** The bytes that one stream may have on their way before its sender waits: as many as a socket takes. */
const windowBytes = 512 * 1024
/** The bytes that a paused reader may leave unread: more than two of the product's windows, as yamux is told. */
const maxUnreadBytes = 64 * 1024 * 1024

type Data = StreamMessageEvent['data']
type Sendable = Parameters<AbstractStream['send']>[0]
type Buffer = AbstractStream['readBuffer']

/** In place of a buffer that was never used: hardly any is, and a large region has a million streams. */
const unused = new Uint8ArrayList() as unknown as Buffer

const silent: Logger = Object.assign(() => undefined, {
  error: () => undefined,
  trace: () => undefined,
  enabled: false,
  newScope: () => silent,
})

/** One end of a stream of libp2p over a modelled connection. */
export class SimulatedStream extends AbstractStream {
  declare listeners?: Listeners
  declare protected readBuffer: Buffer
  declare protected writeBuffer: Buffer
  readonly #connection: Carrier<SimulatedStream>
  #other: SimulatedStream | undefined
  #onItsWayBytes = 0

  constructor(connection: Carrier<SimulatedStream>, id: string, protocol: string, direction: 'inbound' | 'outbound') {
    super({ id, protocol, direction, log: silent, maxReadBufferLength: maxUnreadBytes, inactivityTimeout: Infinity })
    this.#connection = connection
    this.readBuffer = unused
    this.writeBuffer = unused
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
    // libp2p's constructor would listen to events here: this class does where they happen what its listeners do.
    if (!(#connection in this)) return
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

  override [Symbol.asyncIterator](): AsyncGenerator<Data> {
    return new StreamReader(this) as unknown as AsyncGenerator<Data>
  }

  /** As libp2p's, without a copy where nothing waits. */
  override send(data: Sendable): boolean {
    if (this.writeStatus === 'writable' && !this.writableNeedsDrain && this.writeBuffer.byteLength === 0) {
      const { canSendMore } = this.sendData(data as unknown as Parameters<AbstractStream['sendData']>[0])
      this.writableNeedsDrain = !canSendMore
      return canSendMore
    }
    if (this.writeBuffer === unused) this.writeBuffer = new Uint8ArrayList() as unknown as Buffer
    return super.send(data)
  }

  /** As libp2p's, without a copy where somebody takes it at once. */
  override onData(data: Sendable): void {
    if (this.readStatus !== 'readable' || this.readBuffer.byteLength > 0 || this.listenerCount('message') === 0) {
      if (this.readBuffer === unused) this.readBuffer = new Uint8ArrayList() as unknown as Buffer
      return super.onData(data)
    }
    if (data.byteLength > 0) this.dispatchEvent({ type: 'message', data } as unknown as Event)
  }

  override onMuxerDrain(): void {
    this.writableNeedsDrain = false
    queueMicrotask(() => this.processSendQueue())
    super.onMuxerDrain()
  }

  override sendData(data: Parameters<AbstractStream['sendData']>[0]): { sentBytes: number; canSendMore: boolean } {
    const bytes = data.byteLength
    this.#onItsWayBytes += bytes
    this.#connection.count(this.protocol, bytes)
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

type Read = IteratorResult<Data, undefined>

/** Reads a stream as the iterator of libp2p's does; a generator took twice the memory. */
class StreamReader {
  readonly #stream: SimulatedStream
  readonly #arrived: Data[] = []
  #end: { error?: Error | undefined } | undefined
  #waiting: PromiseWithResolvers<Read> | undefined

  constructor(stream: SimulatedStream) {
    this.#stream = stream
    if (stream.readStatus !== 'readable' && stream.readStatus !== 'paused') {
      this.#end = {}
      return
    }
    for (const type of readerEvents) stream.addEventListener(type, this)
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  handleEvent(event: Event): void {
    if (event.type === 'message') this.#arrived.push((event as StreamMessageEvent).data)
    else this.#end ??= { error: (event as StreamCloseEvent).error }
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.resolve(this.#take()!)
  }

  // A promise for each message is all that is kept.
  // oxlint-disable-next-line typescript/promise-function-async
  next(): Promise<Read> {
    const taken = this.#take()
    if (taken !== undefined) return taken
    this.#waiting = Promise.withResolvers()
    return this.#waiting.promise
  }

  async return(): Promise<Read> {
    this.#stop()
    return await Promise.resolve({ done: true, value: undefined })
  }

  /** The bytes that have come, or the end; undefined where neither is here. */
  // oxlint-disable-next-line typescript/promise-function-async
  #take(): Promise<Read> | undefined {
    const value = this.#arrived.shift()
    if (value !== undefined) return Promise.resolve({ done: false, value })
    if (this.#end === undefined) return undefined
    const { error } = this.#end
    this.#end = {}
    this.#stop()
    return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error)
  }

  #stop(): void {
    this.#end ??= {}
    for (const type of readerEvents) this.#stream.removeEventListener(type, this)
  }
}

const readerEvents = ['message', 'close', 'remoteCloseWrite'] as const
