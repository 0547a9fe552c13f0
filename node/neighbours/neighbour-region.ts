import type { Libp2p } from '@libp2p/interface'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import {
  encodeGuestQuestion,
  guestProtocol,
  maxGuestAnswerBytes,
  parseGuestAnswer,
} from '../../protocol/messages/guest.ts'
import { systemClock } from '../base/clock.ts'
import type { Bandwidth } from '../base/bandwidth.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import { RegionGate } from '../peers/admission/region-gate.ts'
import { guestSecret, loadRegionSecrets, openGuestSecret } from '../peers/admission/region-keys.ts'
import { BanList } from '../peers/ban-list.ts'
import { ChunkClient } from '../peers/chunk/client.ts'
import { readFrames, writeFrame } from '../peers/frames.ts'
import { RegionObjects } from '../peers/object/region-objects.ts'
import { loadIdentity } from '../peers/identity.ts'
import type { Peer } from '../peers/peer.ts'
import { createPeerHost } from '../peers/peer-host.ts'
import { TrafficCounter, type Traffic } from '../peers/traffic.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import type { Urgency } from '../base/urgency.ts'
import { NeighbourMembers } from './neighbour-members.ts'

/** A member that lacked a chunk of a segment is not asked for the segment for so long (ms): it may come to hold it. */
const lacksMs = 10_000
const maxLacks = 4096
/**
 * How long a member may not get on before the registry is asked too (ms), until it is known how long answers take. The
 * first is more than a round trip within a country; the most is a few between continents.
 */
const latency = { firstMs: 50, minMs: 50, maxMs: 400 } as const
/** How long a question may take (ms). */
const questionMs = 3_000
/** How long a want may wait while its member does not get on with anything (ms). */
const stallMs = 5_000

export interface NeighbourRegionParts {
  log: Log
  /** Counts objects; whoever asks for chunks counts those. */
  bandwidth: Pick<Bandwidth, 'charge'>
}

export interface NeighbourRegionOptions {
  /** Name of the neighbour region. */
  region: string
  bootstrap: readonly string[]
  /** Holds the key for guests of that region; undefined where it has none. */
  keyFile: string | undefined
  /** Holds the key of this host's identity. */
  identityFile: string
  own: { region: string; name: string }
}

export interface NeighbourStatus extends Traffic {
  region: string
  /** Peer ids of the members that are connected; none while nothing is read. */
  members: string[]
  /** Members that are known, connected or not. */
  known: number
  /** Why no member is connected, where the last one that was dialled did not take this host. */
  problem: string | undefined
}

/**
 * Another region, of which this host is a guest: over a libp2p host of its own that listens nowhere it is served what
 * is named by its digest, and serves nothing. Chunks are verified as those of its own region are.
 */
export class NeighbourRegion {
  readonly region: string
  readonly traffic = new TrafficCounter()
  /** Asks members that are connected for objects. */
  readonly objects: RegionObjects
  readonly #host: Libp2p
  readonly #log: Log
  readonly #own: NeighbourRegionOptions['own']
  readonly #members: NeighbourMembers
  readonly #lacks = new ExpiringMap<string>({ maxEntries: maxLacks })
  readonly #asked = new ExpiringMap<string>({ maxEntries: maxLacks })
  readonly #chunks: ChunkClient
  readonly #stopping = new AbortController()

  /** @throws invalid for a key file that is not what it should be */
  static async open(
    { log, bandwidth }: NeighbourRegionParts,
    options: NeighbourRegionOptions,
  ): Promise<NeighbourRegion> {
    const { region, keyFile, identityFile } = options
    const secrets =
      keyFile === undefined
        ? [openGuestSecret(region)]
        : await loadRegionSecrets(keyFile, region, { derive: guestSecret })
    const bans = new BanList()
    const host = await createPeerHost(
      { privateKey: await loadIdentity(identityFile), gate: new RegionGate({ log }, secrets) },
      { listen: [], isBarred: (peer) => bans.has(peer), asGuest: true },
    )
    const neighbour = new NeighbourRegion({ host, bans, log, bandwidth }, options)
    await host.start()
    neighbour.#members.dial()
    return neighbour
  }

  private constructor(
    { host, bans, log, bandwidth }: NeighbourRegionParts & { host: Libp2p; bans: BanList },
    { region, bootstrap, own }: NeighbourRegionOptions,
  ) {
    const { signal } = this.#stopping
    this.region = region
    this.#host = host
    this.#log = log
    this.#own = own
    this.#members = new NeighbourMembers(
      { host, bans, traffic: this.traffic, clock: systemClock, log, signal },
      { region, bootstrap },
    )
    const membership = {
      connectedPeer: (id: string) => this.#members.get(id),
      reach: async (id: string) => await Promise.resolve(this.#members.get(id)),
      ban: (peer: Peer, error: P2pfsError) => this.#members.ban(peer, error),
      members: () => this.#members.connected,
    }
    const onBytes = (bytes: number): void => bandwidth.charge(bytes)
    this.objects = new RegionObjects({ host, membership, log, onBytes })
    this.#chunks = new ChunkClient({ host, membership, signal, latency })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(new P2pfsError('closed', 'neighbour region is left'))
    this.#members.stop()
    await this.#host.stop()
  }

  /** Whether some member is connected that may hold chunks of the segment. It begins to connect to more where none is. */
  isReady(table: Digest): boolean {
    const isReady = this.#next(table, new Set()) !== undefined
    if (!isReady) this.#members.dial()
    return isReady
  }

  /**
   * Whether some member is connected that is not silent. Where none is, it is connected to first, if it can be. @throws
   * the signal's reason
   */
  async isAwake({ signal }: { signal: AbortSignal }): Promise<boolean> {
    const isAwake = (): boolean => this.#members.leastBusy(() => false) !== undefined
    if (isAwake()) return true
    this.#members.dial()
    await this.#members.whenConnected({ signal })
    return isAwake()
  }

  status(): NeighbourStatus {
    const { connected, known, problem } = this.#members
    return { region: this.region, members: connected.map(({ id }) => id), known, problem, ...this.traffic.snapshot() }
  }

  /** How long a member that owes a chunk takes to get on, in 95 of 100 cases (ms). */
  usualMs({ isUrgent }: Pick<Urgency, 'isUrgent'>): number {
    return this.#chunks.usualMs(isUrgent ? 'demand' : 'background')
  }

  /** The last time at which a member got on with any answer (ms of the clock). */
  get lastSignMs(): number {
    return Math.max(-Infinity, ...this.#members.connected.map(({ standing }) => standing.lastSignMs))
  }

  /**
   * Fetches a chunk from one member after the other, and verifies it.
   * @throws missing where none that is connected has it; the signal's reason
   */
  async fetch(
    { digest, lengthBytes, table }: ChunkRequest,
    { signal, urgency }: { signal: AbortSignal; urgency: Urgency },
  ): Promise<Uint8Array> {
    const tried = new Set<string>()
    for (let id = this.#next(table, tried); id !== undefined; id = this.#next(table, tried)) {
      tried.add(id)
      const done = this.#members.use(id, lengthBytes)
      try {
        const streamClass = urgency.isUrgent ? 'demand' : 'background'
        return await this.#chunks.fetchChunk(id, digest, lengthBytes, { signal, stallMs, streamClass })
      } catch (error) {
        if (signal.aborted || !isP2pfsError(error)) throw error
        this.#log.debug('member of a neighbour region did not deliver', { error, peer: id, region: this.region })
        if (error.code === 'missing') this.#lacksChunk(id, table)
        else if (this.#members.has(id)) this.#members.get(id).standing.failed()
      } finally {
        done()
      }
    }
    throw new P2pfsError('missing', 'no member of the neighbour region delivers the chunk', { digest })
  }

  /** The least busy member that is not known to lack the segment, or to be silent. */
  #next(table: Digest, except: ReadonlySet<string>): string | undefined {
    return this.#members.leastBusy((id) => except.has(id) || this.#lacks.has(`${id} ${table}`))
  }

  /** Asks the member who has the segment instead; once for each. */
  #lacksChunk(id: string, table: Digest): void {
    const key = `${id} ${table}`
    this.#lacks.set(key, true, lacksMs)
    if (this.#asked.has(key)) return
    this.#asked.set(key, true, lacksMs)
    this.#ask(id, table).catch((error: unknown) =>
      this.#log.debug('member of a neighbour region names no other members', { error, peer: id }),
    )
  }

  async #ask(id: string, table: Digest): Promise<void> {
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(questionMs)])
    const stream = await this.#host.dialProtocol(this.#members.get(id).libp2pId, guestProtocol, { signal })
    const onAbort = (): void => stream.abort(new P2pfsError('timeout', 'member does not answer'))
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await writeFrame(stream, [encodeGuestQuestion({ ...this.#own, table })], { signal })
      for await (const message of readFrames(stream, maxGuestAnswerBytes)) {
        for (const member of parseGuestAnswer(message).members) this.#members.learn(member)
        break
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      stream.close().catch(() => undefined)
    }
    this.#members.dial()
  }
}
