import type { Libp2p, Stream } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { chunkProtocol, type WantPriority } from '../../../protocol/messages/chunk.ts'
import { systemClock, type Clock } from '../../base/clock.ts'
import { LatencyEstimate, type LatencyBounds } from '../../base/latency-estimate.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'
import type { PeerStanding } from '../peer-standing.ts'
import { ChunkStream, type WantOptions } from './stream.ts'

/** Each class has a stream of its own to each peer, so that reads that somebody waits for overtake all others. */
export const streamClasses = ['demand', 'background'] as const
export type StreamClass = (typeof streamClasses)[number]

/**
 * How long a peer that owes a chunk may not get on before somebody else is asked (ms). The first is what a loaded host
 * on a slow link may take. Below the least a peer on the same switch is asked twice for every pause of its process; a
 * reader notices more than the most.
 */
const latencyBounds = { firstMs: 300, minMs: 50, maxMs: 1_000 } as const
/** The same, for a member that is to say that it reads a chunk from the registry: a small message. */
const comingBounds = { firstMs: 50, minMs: 50, maxMs: 500 } as const

/** Wants that are sent within this time count as sent together (ms). */
const togetherMs = 20
/** A peer that delivers at all at half its usual pace is busy. */
const busyFactor = 2

export interface ChunkClientParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'connectedPeer' | 'ban'> & {
    reach: (peerId: string, options: { signal: AbortSignal }) => Promise<Peer>
  }
  /** Ends the opening of streams. */
  signal: AbortSignal
  clock?: Clock
  /** How long a peer that owes a chunk may not get on (ms), where its region is not this host's. */
  latency?: LatencyBounds
}

/** Fetches chunks from peers. */
export class ChunkClient {
  readonly #parts: ChunkClientParts
  readonly #clock: Clock
  readonly #streams = new WeakMap<Peer, Map<StreamClass, ChunkStream>>()
  readonly #latency: Record<StreamClass, LatencyEstimate>
  readonly #comingLatency = new LatencyEstimate(comingBounds)

  constructor(parts: ChunkClientParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
    const bounds = parts.latency ?? latencyBounds
    this.#latency = { demand: new LatencyEstimate(bounds), background: new LatencyEstimate(bounds) }
  }

  /**
   * Fetches one chunk from one member, which is dialled where it is not connected, and verifies it. A peer that sends
   * anything else is banned.
   * @throws missing, busy, timeout, unavailable, invalid; the signal's reason
   */
  async fetchChunk(
    peerId: string,
    digest: Digest,
    lengthBytes: number,
    {
      streamClass,
      priority = streamClass,
      ...options
    }: Omit<WantOptions, 'priority'> & { streamClass: StreamClass; priority?: WantPriority },
  ): Promise<Uint8Array> {
    const peer = await this.#parts.membership.reach(peerId, options)
    const bytes = await this.#stream(peer, streamClass).fetch(digest, lengthBytes, { ...options, priority })
    peer.traffic.received(bytes.length)
    return bytes
  }

  /** Connects to a member. @throws unavailable where it is none, or cannot be reached; the signal's reason */
  async meet(peerId: string, options: { signal: AbortSignal }): Promise<void> {
    await this.#parts.membership.reach(peerId, options)
  }

  /** How the peer has behaved. @throws unavailable where it is not connected */
  standing(peerId: string): PeerStanding {
    return this.#parts.membership.connectedPeer(peerId).standing
  }

  /** How long a peer that owes a chunk takes to get on, in 95 of 100 cases (ms). */
  usualMs(streamClass: StreamClass): number {
    return this.#latency[streamClass].p95Ms
  }

  /** How long members take to say that they read a chunk from the registry, in 95 of 100 cases (ms). */
  get comingMs(): number {
    return this.#comingLatency.p95Ms
  }

  /**
   * Whether the peer is busy with what it was asked for before a want, and gets on: the want waits for its turn.
   * @param askedAtMs when the want was sent (ms of the clock)
   */
  isBusyWithEarlier(peerId: string, streamClass: StreamClass, askedAtMs: number): boolean {
    const met = this.#lastMet(peerId, streamClass)
    if (met === undefined) return false
    const isRecent = this.#clock.now() - met.metAtMs <= busyFactor * this.usualMs(streamClass)
    return isRecent && met.sentAtMs <= askedAtMs + togetherMs
  }

  #lastMet(peerId: string, streamClass: StreamClass): ChunkStream['lastMet'] {
    try {
      const peer = this.#parts.membership.connectedPeer(peerId)
      return this.#streams.get(peer)?.get(streamClass)?.lastMet
    } catch (error) {
      // It has left, and its wants are about to fail.
      if (isP2pfsError(error, 'unavailable')) return undefined
      throw error
    }
  }

  /** The peer's stream of this class, opened where there is none; it is forgotten when it ends. */
  #stream(peer: Peer, streamClass: StreamClass): ChunkStream {
    let streams = this.#streams.get(peer)
    if (streams === undefined) {
      streams = new Map()
      this.#streams.set(peer, streams)
    }
    const open = streams.get(streamClass)
    if (open !== undefined) return open
    const stream = new ChunkStream(this.#open(peer), {
      peer,
      clock: this.#clock,
      latency: this.#latency[streamClass],
      comingLatency: this.#comingLatency,
      onLie: (error) => this.#parts.membership.ban(peer, error),
    })
    streams.set(streamClass, stream)
    void stream.ended.then(() => {
      if (streams.get(streamClass) === stream) streams.delete(streamClass)
    })
    return stream
  }

  async #open(peer: Peer): Promise<Stream> {
    const { host, signal } = this.#parts
    try {
      return await host.dialProtocol(peer.libp2pId, chunkProtocol, { signal })
    } catch (cause) {
      throw new P2pfsError('unavailable', `cannot open a stream to the peer: ${(cause as Error).message}`, {
        cause,
        peer: peer.id,
      })
    }
  }
}
