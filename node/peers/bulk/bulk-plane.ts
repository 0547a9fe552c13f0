import type { Libp2p, Stream } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { encodeBulkAnswer, type BulkMode } from '../../../protocol/messages/bulk.ts'
import type { Bandwidth } from '../../base/bandwidth.ts'
import type { Log } from '../../base/log.ts'
import type { Urgency } from '../../base/urgency.ts'
import { writeFrame } from '../frames.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'
import type { ChunkFiles } from './chunk-files.ts'
import { BulkClient, type BulkFetchOptions, type BulkState } from './client.ts'
import { BulkServer } from './server.ts'
import type { BulkListen } from './thread-messages.ts'

export interface BulkOptions {
  mode: BulkMode
  listen: BulkListen
}

export interface BulkPlaneParts {
  host: Pick<Libp2p, 'dialProtocol' | 'getConnections'>
  membership: Pick<Membership, 'connectedPeer' | 'ban' | 'traffic'>
  log: Log
  /** A limit on what is given to peers. */
  upload: Pick<Bandwidth, 'memory'>
  /** Ends requests to peers. */
  signal: AbortSignal
}

/**
 * Carries chunks that nobody waits for, over connections beside libp2p. Without such connections, as before {@link start},
 * chunks come over libp2p.
 */
export class BulkPlane {
  readonly #parts: BulkPlaneParts
  readonly #options: BulkOptions | undefined
  #client: BulkClient | undefined
  #server: BulkServer | undefined

  /** @param options undefined where this host neither asks nor serves in bulk */
  constructor(parts: BulkPlaneParts, options: BulkOptions | undefined) {
    this.#parts = parts
    this.#options = options
  }

  /**
   * Begins to listen. If it cannot, and nobody has named the address, this host serves over libp2p only.
   * @throws unavailable where an address that was named cannot be listened on
   */
  async start(files: ChunkFiles): Promise<void> {
    if (this.#options === undefined) return
    this.#client = new BulkClient({ ...this.#parts, files }, this.#options)
    this.#server = new BulkServer({ ...this.#parts, files }, this.#options)
    try {
      await this.#server.start()
    } catch (error) {
      if (!this.#options.listen.orAny) throw error
      this.#parts.log.warn('bulk transfers cannot listen; chunks are served over libp2p only', { error })
    }
  }

  async stop(): Promise<void> {
    await this.#client?.stop()
    await this.#server?.stop()
  }

  /** How the connections are protected; undefined where there are none. */
  get mode(): BulkMode | undefined {
    return this.#options?.mode
  }

  /** The port that peers reach this host's thread on; undefined where it does not listen. */
  get port(): number | undefined {
    return this.#server?.port
  }

  /** How chunks come from the peer. */
  stateOf(peerId: string): BulkState | 'off' {
    return this.#client?.stateOf(peerId) ?? 'off'
  }

  /** See {@link BulkClient.carries}. */
  carries(peerId: string, options: { underWayBytes: number }): boolean {
    return this.#client?.carries(peerId, options) ?? false
  }

  /** See {@link BulkClient.ready}. */
  async ready(
    peerId: string,
    options: { underWayBytes: number; signal: AbortSignal; urgency: Urgency },
  ): Promise<boolean> {
    return (await this.#client?.ready(peerId, options)) ?? false
  }

  /** See {@link BulkClient.fetchToStore}. */
  async fetchToStore(peerId: string, digest: Digest, lengthBytes: number, options: BulkFetchOptions): Promise<void> {
    if (this.#client === undefined) throw new P2pfsError('unavailable', 'this host has no bulk connections')
    await this.#client.fetchToStore(peerId, digest, lengthBytes, options)
  }

  /** See {@link BulkClient.isBusyWithEarlier}. */
  isBusyWithEarlier(peerId: string, askedAtMs: number): boolean {
    return this.#client?.isBusyWithEarlier(peerId, askedAtMs) ?? false
  }

  /** Answers one request for a grant. @throws invalid where the peer breaks the protocol; unavailable */
  async serve(stream: Stream, peer: Pick<Peer, 'id'>): Promise<void> {
    if (this.#server !== undefined) return await this.#server.serve(stream, peer)
    await writeFrame(stream, [encodeBulkAnswer({ refused: 'off' })])
    await stream.close()
  }

  /** The peer has gone: what it has of this host, and this host of it, ends. */
  leave(peerId: string): void {
    this.#client?.leave(peerId)
    this.#server?.revoke(peerId)
  }
}
