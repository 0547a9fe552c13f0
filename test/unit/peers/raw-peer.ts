import type { TestContext } from 'node:test'
import type { Libp2p, PeerId, PrivateKey, Stream } from '@libp2p/interface'
import { createRawHost } from '../../support/raw-host.ts'
import { multiaddr } from '@multiformats/multiaddr'
import {
  encodeRegionMessage,
  maxRegionMessageBytes,
  parseRegionMessage,
  regionProtocol,
  type RegionMessage,
} from '../../../protocol/messages/region.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'

/** A peer that takes region messages, and says what the test has it say. */
export class RawPeer {
  readonly host: Libp2p
  /** The host that it is connected to. */
  readonly target: PeerId
  readonly #address: string
  readonly heard: RegionMessage[]
  #region: Stream | undefined

  private constructor(host: Libp2p, target: PeerId, address: string, heard: RegionMessage[]) {
    this.heard = heard
    this.host = host
    this.target = target
    this.#address = address
  }

  /** Connects to a host. It says nothing yet. */
  static async connect(t: TestContext, address: string, { key }: { key?: PrivateKey } = {}): Promise<RawPeer> {
    const host = await createRawHost(key === undefined ? {} : { privateKey: key })
    const heard: RegionMessage[] = []
    await host.handle(regionProtocol, async (stream) => {
      try {
        for await (const bytes of readFrames(stream, maxRegionMessageBytes)) heard.push(parseRegionMessage(bytes))
      } catch {
        // It is cut off.
      }
    })
    await host.start()
    t.after(async () => await host.stop())
    const { remotePeer } = await host.dial(multiaddr(address))
    return new RawPeer(host, remotePeer, address, heard)
  }

  get isConnected(): boolean {
    return this.host.getConnections(this.target).some(({ status }) => status === 'open')
  }

  async open(protocol: string): Promise<Stream> {
    return await this.host.dialProtocol(this.target, protocol)
  }

  /** Sends messages on its region stream. */
  async say(...messages: RegionMessage[]): Promise<void> {
    this.#region ??= await this.open(regionProtocol)
    for (const message of messages) await writeFrame(this.#region, [encodeRegionMessage(message)])
  }

  /** Sends a short message many times, in one piece. */
  async sayOften(message: RegionMessage, times: number): Promise<void> {
    const bytes = encodeRegionMessage(message)
    const frame = Buffer.concat([Uint8Array.of(bytes.length), bytes])
    this.#region!.send(Buffer.concat(Array.from({ length: times }, () => frame)))
    await new Promise(setImmediate)
  }

  async sayHello({ region = 'test', name = 'raw' } = {}): Promise<void> {
    await this.say({ type: 'hello', region, name, addresses: [] })
  }

  /** Whether it is let in again. */
  async canReturn(): Promise<boolean> {
    try {
      const connection = await this.host.dial(multiaddr(this.#address))
      await connection.newStream(regionProtocol)
      return true
    } catch {
      return false
    }
  }
}
