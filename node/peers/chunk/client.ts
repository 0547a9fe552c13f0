import type { Libp2p } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { chunkProtocol } from '../../../protocol/messages/chunk.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'
import { ChunkStream } from './stream.ts'

/** Each class has a stream of its own to each peer, so that reads that somebody waits for overtake all others. */
export type StreamClass = 'demand' | 'background'

export interface ChunkClientParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'connectedPeer' | 'ban'>
  /** Ends the opening of streams. */
  signal: AbortSignal
}

/** Fetches chunks from peers. */
export class ChunkClient {
  readonly #parts: ChunkClientParts
  readonly #streams = new WeakMap<Peer, Map<StreamClass, Promise<ChunkStream>>>()

  constructor(parts: ChunkClientParts) {
    this.#parts = parts
  }

  /**
   * Fetches one chunk from one peer and verifies it. A peer that sends anything else is banned.
   * @throws missing, busy, timeout, unavailable, invalid
   */
  async fetchChunk(
    peerId: string,
    digest: Digest,
    lengthBytes: number,
    { signal, streamClass, timeoutMs }: { signal: AbortSignal; streamClass: StreamClass; timeoutMs: number },
  ): Promise<Uint8Array> {
    const { membership } = this.#parts
    const peer = membership.connectedPeer(peerId)
    try {
      const stream = await this.#stream(peer, streamClass)
      const bytes = await stream.fetch(digest, lengthBytes, { signal, timeoutMs })
      peer.traffic.received(bytes.length)
      return bytes
    } catch (error) {
      if (isP2pfsError(error, 'invalid')) membership.ban(peer, error)
      throw error
    }
  }

  /** The peer's stream of this class, opened where there is none; it is forgotten when it ends. */
  async #stream(peer: Peer, streamClass: StreamClass): Promise<ChunkStream> {
    let streams = this.#streams.get(peer)
    if (streams === undefined) {
      streams = new Map()
      this.#streams.set(peer, streams)
    }
    const open = streams.get(streamClass)
    if (open !== undefined) return await open
    const opening = this.#open(peer)
    streams.set(streamClass, opening)
    const forget = (): void => {
      if (streams.get(streamClass) === opening) streams.delete(streamClass)
    }
    opening.then(async ({ ended }) => await ended).then(forget, forget)
    return await opening
  }

  async #open(peer: Peer): Promise<ChunkStream> {
    const { host, signal } = this.#parts
    try {
      return new ChunkStream(await host.dialProtocol(peer.libp2pId, chunkProtocol, { signal }), peer.id)
    } catch (cause) {
      throw new P2pfsError('unavailable', `cannot open a stream to the peer: ${(cause as Error).message}`, {
        cause,
        peer: peer.id,
      })
    }
  }
}
