import { randomBytes } from 'node:crypto'
import type { Stream } from '@libp2p/interface'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeBulkAnswer,
  grantIdBytes,
  grantLifetimeMs,
  grantSecretBytes,
  parseBulkRequest,
  type BulkAnswer,
  type BulkMode,
} from '../../../protocol/messages/bulk.ts'
import type { Bandwidth } from '../../base/bandwidth.ts'
import type { Log } from '../../base/log.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'
import type { TrafficCounter } from '../traffic.ts'
import { bulkLimits } from './bulk-limits.ts'
import { BulkThread } from './bulk-thread.ts'
import type { ChunkFiles } from './chunk-files.ts'
import type { BulkListen, FromSender, SenderSetup, ToSender } from './thread-messages.ts'

export interface BulkServerParts {
  files: Pick<ChunkFiles, 'writing' | 'suspect'>
  membership: Pick<Membership, 'connectedPeer' | 'ban' | 'traffic'>
  log: Log
  /** A limit on what is given to peers. */
  upload: Pick<Bandwidth, 'memory'>
}

/** Gives peers grants for bulk connections, and has a thread serve them. */
export class BulkServer {
  readonly #parts: BulkServerParts
  readonly #mode: BulkMode
  readonly #listen: BulkListen
  readonly #thread: BulkThread<ToSender, FromSender>
  #listening: PromiseWithResolvers<void> | undefined
  #port: number | undefined
  #connections = 0

  constructor(parts: BulkServerParts, { mode, listen }: { mode: BulkMode; listen: BulkListen }) {
    this.#parts = parts
    this.#mode = mode
    this.#listen = listen
    this.#thread = new BulkThread(
      { file: new URL('./sender-thread.ts', import.meta.url), log: parts.log },
      { onMessage: (message) => this.#receive(message), onLost: () => this.#lost() },
    )
  }

  /** The port that this host listens on; undefined where it does not. */
  get port(): number | undefined {
    return this.#port
  }

  /** Begins to listen. @throws unavailable where the address cannot be listened on */
  async start(): Promise<void> {
    if (this.#thread.isRunning) return
    this.#listening = Promise.withResolvers()
    const { files, upload } = this.#parts
    const { directory } = files.writing
    this.#thread.start({
      directory,
      mode: this.#mode,
      listen: this.#listen,
      upload: upload.memory,
    } satisfies SenderSetup)
    await this.#listening.promise
  }

  /** Answers the request of one stream. @throws invalid where the peer breaks the protocol; unavailable */
  async serve(stream: Stream, peer: Pick<Peer, 'id'>): Promise<void> {
    for await (const message of readFrames(stream, bulkLimits.messageBytes)) {
      const answer = this.#answer(parseBulkRequest(message).mode, peer)
      await writeFrame(stream, [encodeBulkAnswer(answer)])
      break
    }
    await stream.close()
  }

  /** Ends what the peer has: it is no peer any more. */
  revoke(peerId: string): void {
    this.#thread.post({ revoke: peerId })
  }

  async stop(): Promise<void> {
    this.#port = undefined
    await this.#thread.stop()
  }

  #answer(mode: BulkMode, { id: peer }: Pick<Peer, 'id'>): BulkAnswer {
    if (!this.#thread.isRunning) void this.start().catch(() => undefined)
    if (this.#port === undefined) return { refused: 'off' }
    if (mode !== this.#mode) return { refused: 'mode' }
    if (this.#connections >= bulkLimits.connections.inAll) return { refused: 'busy' }
    const grant = { id: randomBytes(grantIdBytes), secret: randomBytes(grantSecretBytes) }
    this.#thread.post({ grant, peer, lifetimeMs: grantLifetimeMs })
    return { ...grant, port: this.#port }
  }

  #receive(message: FromSender): void {
    const { files } = this.#parts
    if ('listening' in message) {
      this.#port = message.listening.port
      this.#listening?.resolve()
    } else if ('failed' in message) {
      const { hosts, port } = this.#listen
      const told = `cannot listen for bulk transfers on ${hosts.join()}, port ${port}: ${message.failed.message}`
      this.#listening?.reject(new P2pfsError('unavailable', told))
    } else if ('sent' in message) {
      this.#connections = message.connections
      for (const { peer, bytes, chunks } of message.sent) this.#counterOf(peer).sent(bytes, chunks)
    } else if ('damaged' in message) files.suspect(message.damaged)
    else this.#blame(message.broke, new P2pfsError(message.failure.code, message.failure.message))
  }

  #counterOf(peer: string): Pick<TrafficCounter, 'sent'> {
    try {
      return this.#parts.membership.connectedPeer(peer).traffic
    } catch {
      // It has left meanwhile.
      return this.#parts.membership.traffic
    }
  }

  #blame(peerId: string, error: P2pfsError): void {
    const { membership, log } = this.#parts
    try {
      membership.ban(membership.connectedPeer(peerId), error)
    } catch {
      log.debug('peer that broke the bulk protocol has left', { error, peer: peerId })
    }
  }

  #lost(): void {
    this.#port = undefined
    this.#connections = 0
    this.#listening?.reject(new P2pfsError('unavailable', 'the thread for bulk transfers has ended'))
  }
}
