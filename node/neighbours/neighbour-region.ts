import type { Libp2p, PeerId } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import {
  encodeGuestQuestion,
  guestProtocol,
  maxGuestAnswerBytes,
  maxNamedMembers,
  parseGuestAnswer,
} from '../../protocol/messages/guest.ts'
import type { MemberAddresses } from '../../protocol/messages/region.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import { RegionGate } from '../peers/admission/region-gate.ts'
import { guestSecret, loadRegionSecrets, openGuestSecret } from '../peers/admission/region-keys.ts'
import { BanList } from '../peers/ban-list.ts'
import { ChunkClient } from '../peers/chunk/client.ts'
import { readFrames, writeFrame } from '../peers/frames.ts'
import { DialAllowance } from '../peers/dial-allowance.ts'
import { loadIdentity } from '../peers/identity.ts'
import { Peer } from '../peers/peer.ts'
import { createPeerHost } from '../peers/peer-host.ts'
import { TrafficCounter, type Traffic } from '../peers/traffic.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import type { Urgency } from '../base/urgency.ts'

/** Members of the neighbour region that this host is connected to at most. */
const maxConnected = maxNamedMembers
/** Pause before a member that was not reached is dialled again (ms): doubles from the first to the last. */
const backoffMs = { first: 1_000, last: 30_000 } as const
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
  /** Peer ids of the members that are connected. */
  members: string[]
}

/** A member that is known by its address. */
interface Target {
  addresses: readonly string[]
  failures: number
  dialAtMs: number
  isDialling: boolean
}

/**
 * Another region, of which this host is a guest: it connects to few members, those of the operator at once and others on demand, over a libp2p host of its own that
 * listens nowhere. It is served chunks, and serves nothing. Chunks are verified as those of its own region are.
 */
export class NeighbourRegion {
  readonly region: string
  readonly traffic = new TrafficCounter()
  readonly #host: Libp2p
  readonly #bans: BanList
  readonly #log: Log
  readonly #own: NeighbourRegionOptions['own']
  readonly #targets = new Map<string, Target>()
  readonly #members = new Map<string, Peer>()
  readonly #lacks = new ExpiringMap<string>({ maxEntries: maxLacks })
  readonly #asked = new ExpiringMap<string>({ maxEntries: maxLacks })
  readonly #loads = new Map<string, number>()
  readonly #chunks: ChunkClient
  readonly #allowance: DialAllowance
  readonly #stopping = new AbortController()

  /** @throws invalid for a key file that is not what it should be */
  static async open({ log }: { log: Log }, options: NeighbourRegionOptions): Promise<NeighbourRegion> {
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
    const neighbour = new NeighbourRegion({ host, bans, log }, options)
    await host.start()
    neighbour.#dial()
    return neighbour
  }

  private constructor(
    { host, bans, log }: { host: Libp2p; bans: BanList; log: Log },
    { region, bootstrap, own }: NeighbourRegionOptions,
  ) {
    this.region = region
    this.#host = host
    this.#bans = bans
    this.#log = log
    this.#own = own
    // Members may be at addresses of the classes that the operator names.
    this.#allowance = new DialAllowance({ now: () => performance.now() }, { listen: bootstrap })
    for (const address of bootstrap) this.#add(address, [address])
    host.addEventListener('peer:disconnect', ({ detail }) => void this.#members.delete(detail.toString()))
    const membership = {
      connectedPeer: (id: string) => this.#member(id),
      reach: async (id: string) => await Promise.resolve(this.#member(id)),
      ban: (peer: Peer, error: P2pfsError) => this.#ban(peer, error),
    }
    this.#chunks = new ChunkClient({ host, membership, signal: this.#stopping.signal, latency })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(new P2pfsError('closed', 'neighbour region is left'))
    await this.#host.stop()
  }

  /** Whether some member is connected that may hold chunks of the segment. It begins to connect where none is. */
  isReady(table: Digest): boolean {
    if (this.#members.size === 0) this.#dial()
    return this.#next(table, new Set()) !== undefined
  }

  status(): NeighbourStatus {
    return { region: this.region, members: [...this.#members.keys()], ...this.traffic.snapshot() }
  }

  /** How long a member that owes a chunk takes to get on, in 95 of 100 cases (ms). */
  usualMs({ isUrgent }: Pick<Urgency, 'isUrgent'>): number {
    return this.#chunks.usualMs(isUrgent ? 'demand' : 'background')
  }

  /** When a member last got on with any answer (ms of the clock). */
  get lastSignMs(): number {
    return Math.max(-Infinity, ...[...this.#members.values()].map(({ standing }) => standing.lastSignMs))
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
      this.#loads.set(id, (this.#loads.get(id) ?? 0) + lengthBytes)
      try {
        const streamClass = urgency.isUrgent ? 'demand' : 'background'
        return await this.#chunks.fetchChunk(id, digest, lengthBytes, { signal, stallMs, streamClass })
      } catch (error) {
        if (signal.aborted || !isP2pfsError(error)) throw error
        this.#log.debug('member of a neighbour region did not deliver', { error, peer: id, region: this.region })
        if (error.code === 'missing') this.#lacksChunk(id, table)
        else this.#members.get(id)?.standing.failed()
      } finally {
        this.#loads.set(id, this.#loads.get(id)! - lengthBytes)
      }
    }
    throw new P2pfsError('missing', 'no member of the neighbour region delivers the chunk', { digest })
  }

  /** The least busy member that is not known to lack the segment, or to be silent. */
  #next(table: Digest, except: ReadonlySet<string>): string | undefined {
    let best: string | undefined
    for (const [id, { standing }] of this.#members) {
      if (except.has(id) || standing.isSilent || this.#lacks.has(`${id} ${table}`)) continue
      if (best === undefined || (this.#loads.get(id) ?? 0) < (this.#loads.get(best) ?? 0)) best = id
    }
    return best
  }

  /** Asks the member who has the segment instead; once for each. */
  #lacksChunk(id: string, table: Digest): void {
    const key = `${id} ${table}`
    this.#lacks.set(key, true, lacksMs)
    if (this.#asked.has(key)) return
    this.#asked.set(key, true, lacksMs)
    this.#ask(id, table).catch((error: unknown) => this.#log.debug('member names no others', { error, peer: id }))
  }

  async #ask(id: string, table: Digest): Promise<void> {
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(questionMs)])
    const stream = await this.#host.dialProtocol(this.#member(id).libp2pId, guestProtocol, { signal })
    const onAbort = (): void => stream.abort(new P2pfsError('timeout', 'member does not answer'))
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await writeFrame(stream, [encodeGuestQuestion({ ...this.#own, table })], { signal })
      for await (const message of readFrames(stream, maxGuestAnswerBytes)) {
        for (const member of parseGuestAnswer(message).members) this.#learn(member)
        break
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      stream.close().catch(() => undefined)
    }
    this.#dial()
  }

  #learn({ peer, addresses }: MemberAddresses): void {
    if (this.#members.has(peer) || this.#targets.has(peer) || peer === this.#host.peerId.toString()) return
    if (this.#targets.size >= 2 * maxConnected) return
    try {
      peerIdFromString(peer)
    } catch {
      return
    }
    const usable = addresses.filter((address) => this.#allowance.isDiallable(address)).slice(0, maxNamedMembers)
    if (usable.length === 0) return
    this.#add(
      peer,
      usable.map((address) => `${address.replace(/\/p2p\/.*$/, '')}/p2p/${peer}`),
    )
  }

  #add(key: string, addresses: readonly string[]): void {
    this.#targets.set(key, { addresses, failures: 0, dialAtMs: 0, isDialling: false })
  }

  #dial(): void {
    const now = performance.now()
    for (const [key, target] of this.#targets) {
      if (this.#members.size >= maxConnected) return
      if (!target.isDialling && target.dialAtMs <= now && !this.#members.has(key)) void this.#connect(target)
    }
  }

  async #connect(target: Target): Promise<void> {
    target.isDialling = true
    const { signal } = this.#stopping
    try {
      const { remotePeer } = await this.#host.dial(
        target.addresses.map((address) => multiaddr(address)),
        { signal },
      )
      target.failures = 0
      // A connection that is open already is not dialled again for some time.
      target.dialAtMs = performance.now() + backoffMs.first
      this.#meet(remotePeer)
    } catch (error) {
      target.dialAtMs = performance.now() + Math.min(backoffMs.first * 2 ** target.failures++, backoffMs.last)
      if (target.failures === 1 && !signal.aborted)
        this.#log.warn('neighbour region cannot be reached; look at its address, its key and its --guest-key-file', {
          error,
          region: this.region,
          addresses: target.addresses,
        })
    } finally {
      target.isDialling = false
    }
  }

  #meet(id: PeerId): void {
    const key = id.toString()
    if (this.#members.has(key)) return
    this.#members.set(key, new Peer(id, { total: this.traffic, now: () => performance.now() }))
    this.#log.info('connected to a neighbour region', { region: this.region, peer: key })
  }

  #member(id: string): Peer {
    const member = this.#members.get(id)
    if (member === undefined) throw new P2pfsError('unavailable', 'peer is not connected', { peer: id })
    return member
  }

  #ban(peer: Peer, error: P2pfsError): void {
    this.#log.warn('member of a neighbour region sent wrong bytes; it is banned for ten minutes', {
      error,
      peer: peer.id,
      region: this.region,
    })
    this.#bans.add(peer.id)
    this.#members.delete(peer.id)
    this.#host.hangUp(peer.libp2pId).catch(() => undefined)
  }
}
