import type { PeerId, Stream } from '@libp2p/interface'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  maxRegionMessageBytes,
  parseRegionMessage,
  regionProtocol,
  type RegionMessage,
} from '../../../protocol/messages/region.ts'
import type { Clock } from '../../../node/base/clock.ts'
import { silentLog } from '../../../node/base/log.ts'
import { readFrames } from '../../../node/peers/frames.ts'
import { Membership, type MembershipParts } from '../../../node/peers/membership.ts'
import type { Peer } from '../../../node/peers/peer.ts'

/** One end of a stream in memory: what one end sends, the other one reads. */
export class FakeStream extends EventTarget {
  peer!: FakeStream
  readonly status = 'open'
  /** Whether it takes no more than it was sent. */
  isFull = false
  readonly #received: Uint8Array[] = []
  #error: Error | undefined
  #hasEnded = false
  #wake = Promise.withResolvers<undefined>()

  send(bytes: Uint8Array): boolean {
    this.peer.#change(() => this.peer.#received.push(bytes))
    return !this.isFull
  }

  get writeBufferLength(): number {
    return this.isFull ? 1 : 0
  }

  drain(): void {
    this.isFull = false
    this.dispatchEvent(new Event('drain'))
  }

  async close(): Promise<void> {
    await Promise.resolve(this.peer.#change(() => (this.peer.#hasEnded = true)))
  }

  abort(error: Error): void {
    for (const end of [this, this.peer]) {
      end.#change(() => (end.#error ??= error))
      end.dispatchEvent(new Event('close'))
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const bytes = this.#received.shift()
      if (bytes !== undefined) yield bytes
      else if (this.#error !== undefined) throw this.#error
      else if (this.#hasEnded) return
      else await this.#wake.promise
    }
  }

  #change(apply: () => void): void {
    apply()
    this.#wake.resolve(undefined)
    this.#wake = Promise.withResolvers()
  }
}

export function streamPair(): [FakeStream, FakeStream] {
  const [near, far] = [new FakeStream(), new FakeStream()]
  near.peer = far
  far.peer = near
  return [near, far]
}

export const libp2pId = (id: string): PeerId => ({ toString: () => id }) as PeerId

export interface FakeRegionOptions {
  region?: string
  hasBootstrap?: boolean
  /** See {@link MembershipOptions.fullMesh}. */
  fullMesh?: number
  /** Peers that take no more than one region message. */
  stuck?: readonly string[]
  /** The clock; without it time is {@link FakeRegion.nowMs}. */
  clock?: Clock
}

/** The membership of this host, `me`, on a host without a network, with a clock of its own. */
export class FakeRegion {
  readonly membership: Membership
  readonly host: MembershipParts['host']
  /** Region messages that this host has sent, by the peer's id. */
  readonly sent = new Map<string, RegionMessage[]>()
  readonly banned: string[] = []
  /** Ids of members that said where they can be dialled. */
  readonly learned: string[] = []
  /** Peers that were named, each with its teller. */
  readonly heard: { peer: string; teller: string }[] = []
  /** Ids of peers that are not to be dialled for a while. */
  readonly avoided: string[] = []
  readonly hungUp: string[] = []
  /** Answers streams of all other protocols. */
  serve: (stream: Stream, peer: string, protocol: string) => Promise<void> = async () =>
    await new Promise(() => undefined)
  /** Whether a member is dialled without being asked for. */
  isWanted: (peer: string) => boolean = () => true
  /** Dials a member on demand. */
  reach: (peer: string) => Promise<PeerId> = async (peer) =>
    await Promise.reject(new P2pfsError('unavailable', 'nothing is dialled here', { peer }))
  readonly #streams = new Map<string, FakeStream>()
  nowMs = 0
  /** Called when time has passed in a sleep. */
  onSleep: () => void = () => undefined

  constructor({ region = 'test', hasBootstrap = false, fullMesh, stuck = [], clock }: FakeRegionOptions = {}) {
    this.host = {
      peerId: libp2pId('me'),
      getMultiaddrs: () => [],
      hangUp: async (peer) => await Promise.resolve(void this.hungUp.push(String(peer))),
      dialProtocol: async (peer, protocol) => {
        const [near, far] = streamPair()
        this.#streams.set(peer.toString(), near)
        if (stuck.includes(peer.toString())) this.stick(peer.toString())
        if (protocol === regionProtocol) void this.#record(peer.toString(), far).catch(() => undefined)
        else
          void this.serve(far as unknown as Stream, peer.toString(), String(protocol)).catch((error: Error) =>
            far.abort(error),
          )
        return await Promise.resolve(near as unknown as Stream)
      },
    }
    this.membership = new Membership(
      {
        host: this.host,
        bans: { add: (peer) => void this.banned.push(peer) },
        dialler: {
          learn: ({ peer }) => void this.learned.push(peer),
          hear: ({ peer }, teller) => void this.heard.push({ peer, teller }),
          reach: async ({ peer }) => await this.reach(peer),
          want: (isWanted) => void (this.isWanted = isWanted),
          avoid: (peer) => void this.avoided.push(peer),
        },
        signing: { sign: async () => await Promise.resolve(new Uint8Array(64)), isSigned: () => true },
        log: silentLog,
        signal: new AbortController().signal,
        now: () => clock?.now() ?? this.nowMs,
        sleep: async (ms, { signal }) => {
          signal.throwIfAborted()
          this.nowMs += ms
          this.onSleep()
          await Promise.resolve()
        },
      },
      { region, name: 'me', hasBootstrap, ...(fullMesh !== undefined && { fullMesh }) },
    )
  }

  /** A peer connects and says hello. */
  join(
    id: string,
    { region = 'test', addresses = [`/ip4/10.0.0.1/tcp/1/p2p/${id}`] }: { region?: string; addresses?: string[] } = {},
  ): Peer {
    const peer = this.membership.peerOf(libp2pId(id))
    this.membership.welcome(peer, { type: 'hello', region, name: id, addresses })
    return peer
  }

  /** From now on the peer takes no more than one region message, until it is unstuck. */
  stick(id: string): void {
    this.#streams.get(id)!.isFull = true
  }

  unstick(id: string): void {
    this.#streams.get(id)!.drain()
  }

  leave(id: string): void {
    this.membership.leave(libp2pId(id))
  }

  async #record(id: string, stream: FakeStream): Promise<void> {
    const messages: RegionMessage[] = []
    this.sent.set(id, messages)
    for await (const bytes of readFrames(stream as unknown as Stream, maxRegionMessageBytes))
      messages.push(parseRegionMessage(bytes))
  }
}

/** Resolves when everything that is ready to run has run. */
export async function settled(): Promise<void> {
  await new Promise(setImmediate)
}
