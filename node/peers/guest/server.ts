import type { Connection, Stream } from '@libp2p/interface'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { digestBytes, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { chunkProtocol } from '../../../protocol/messages/chunk.ts'
import { objectProtocol } from '../../../protocol/messages/object.ts'
import {
  encodeGuestAnswer,
  guestProtocol,
  maxGuestQuestionBytes,
  parseGuestQuestion,
} from '../../../protocol/messages/guest.ts'
import type { Bandwidth } from '../../base/bandwidth.ts'
import { systemClock, type Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { sourceOfMultiaddr } from '../admission/source.ts'
import type { BanList } from '../ban-list.ts'
import { ByteBudget } from '../byte-budget.ts'
import { ChunkServer } from '../chunk/server.ts'
import { readFrames, writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'
import { ObjectServer } from '../object/server.ts'
import { Peer } from '../peer.ts'
import type { ServedData } from '../served-data.ts'
import { SourcePace } from '../source-pace.ts'
import { TrafficCounter, type Traffic } from '../traffic.ts'
import { membersToAsk, type MembersToAskParts } from './members-to-ask.ts'
import { GuestShare } from './share.ts'

export interface GuestServerParts extends MembersToAskParts {
  served: Pick<ServedData, 'chunk' | 'rootfsManifest' | 'bootProfile'>
  bans: Pick<BanList, 'add'>
  /** Answers that members have not taken yet: guests come after them. */
  unsent: Pick<ByteBudget, 'usedBytes'>
  /** The most that all guests together get. */
  bandwidth: Pick<Bandwidth, 'take'>
  log: Log
  signal: AbortSignal
  clock?: Clock
}

/**
 * Serves guests, which are hosts of other regions: what is on this host and named by a digest that they know (chunks, rootfs manifests,
 * boot profiles), and the names of members to ask. No more.
 */
export class GuestServer {
  readonly traffic = new TrafficCounter()
  readonly #parts: GuestServerParts
  readonly #clock: Clock
  readonly #guests = new Map<Connection, Peer>()
  readonly #share: GuestShare
  readonly #chunks: ChunkServer
  readonly #objects: ObjectServer
  readonly #questions = new SourcePace(limits.guests.questions)

  constructor(parts: GuestServerParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
    this.#share = new GuestShare(parts)
    const unsent = new ByteBudget({ ...limits.guests.unsent, freeBytes: maxChunkBytes })
    this.#chunks = new ChunkServer({
      served: {
        chunk: async (digest, options) => await this.#chunk(digest, options),
        // A guest has nothing read from the registry of this region.
        relayedChunk: async () => await Promise.resolve(undefined),
      },
      unsent,
    })
    this.#objects = new ObjectServer({ served: this.#namedByDigest(), unsent, log: parts.log })
  }

  /** Guests that are connected. */
  get count(): number {
    return this.#guests.size
  }

  /** Chunks that guests have been given. */
  given(): Traffic {
    return this.traffic.snapshot()
  }

  /** Takes in a guest's connection, or closes one that is too many. */
  meet(connection: Connection): void {
    if (this.#guests.size >= limits.guests.inAll)
      return connection.abort(new P2pfsError('busy', 'this host has as many guests as it takes'))
    const guest = new Peer(connection.remotePeer, { total: this.traffic, now: () => this.#clock.now() })
    guest.source = sourceOfMultiaddr(connection.remoteAddr)
    this.#guests.set(connection, guest)
    connection.addEventListener('close', () => this.#guests.delete(connection), { once: true })
    this.#parts.log.debug('guest of another region connected', { peer: guest.id })
  }

  /** Serves one stream of a guest; every protocol of members is refused. */
  async serve(protocol: string, stream: Stream, connection: Connection): Promise<void> {
    const guest = this.#guests.get(connection)
    try {
      if (guest === undefined) throw new P2pfsError('busy', 'guest is not let in')
      if (protocol === chunkProtocol) await this.#chunks.serve(stream, guest)
      else if (protocol === objectProtocol) await this.#objects.serve(stream, guest)
      else if (protocol === guestProtocol) await this.#answer(stream, guest)
      else throw new P2pfsError('denied', 'guests are not served this')
    } catch (error) {
      stream.abort(error as Error)
      if (!isP2pfsError(error, 'invalid')) return this.#parts.log.debug('stream of a guest failed', { error, protocol })
      this.#parts.log.warn('guest broke the protocol; it is banned for ten minutes', { error, peer: guest?.id })
      this.#parts.bans.add(connection.remotePeer.toString())
      connection.abort(error)
    }
  }

  async #chunk(digest: Digest, { signal }: { signal: AbortSignal }): Promise<Uint8Array | undefined> {
    return await this.#shared(await this.#parts.served.chunk(digest, { signal }), signal)
  }

  /** The objects that are proved by their digests, and boot profiles: all others are not here for guests. */
  #namedByDigest(): ConstructorParameters<typeof ObjectServer>[0]['served'] {
    const { served, signal } = this.#parts
    const nothing = async (): Promise<undefined> => await Promise.resolve(undefined)
    return {
      rootfsManifest: async (digest) => await this.#shared(await served.rootfsManifest(digest), signal),
      bootProfile: async (subject) => {
        const profile = await served.bootProfile(subject)
        // One of another rootfs would tell what else is started here.
        if (profile?.rootfs !== subject.rootfs) return undefined
        await this.#share.take(profile.chunks.length * digestBytes, { signal })
        return profile
      },
      imageRecord: nothing,
      layerIndex: nothing,
      sharedBlob: () => undefined,
      blobMap: nothing,
      isImporting: () => false,
      registryWord: () => undefined,
    }
  }

  async #shared(bytes: Uint8Array | undefined, signal: AbortSignal): Promise<Uint8Array | undefined> {
    if (bytes !== undefined) await this.#share.take(bytes.length, { signal })
    return bytes
  }

  async #answer(stream: Stream, guest: Peer): Promise<void> {
    const { signal } = this.#parts
    for await (const message of readFrames(stream, maxGuestQuestionBytes)) {
      const { table } = parseGuestQuestion(message)
      await this.#questions.wait(guest, { signal })
      const members = await membersToAsk(this.#parts, table, { signal })
      await writeFrame(stream, [encodeGuestAnswer({ members })], { signal })
      await stream.close({ signal })
      return
    }
  }
}
