import type { Digest } from '../../protocol/digest.ts'
import { limits } from '../../node/peers/limits.ts'
import type { SimulatedNode } from './simulated-node.ts'
import type { RegistryRead } from './simulated-registry.ts'

/** Invariants of every run. */
export interface InvariantBounds {
  /** The longest that a read which somebody waits for may take (ms). */
  readMs: number
  /** Bytes that the registry sends, of what one host alone would read; where nothing has failed. */
  copies: number
}

export interface Violation {
  what: string
  atMs: number
  /** The host; undefined for one of the region as a whole. */
  host: number | undefined
}

/** Violations that are told; the others are counted. */
const maxTold = 20

/** Looks for what must never be, while a simulation runs. */
export class Invariants {
  readonly #bounds: InvariantBounds
  readonly #ownBytes: number
  readonly #mayFail: boolean
  readonly #readBy = new Map<Digest, number>()
  #registryBytes = 0
  #hasTooMany = false
  readonly told: Violation[] = []
  count = 0
  /** Chunks that the registry has sent more than once. */
  readonly again = { chunks: 0, bytes: 0 }
  /** The most of each that a host had, whenever it was looked at: members in its list, registrations of others, bitmaps of others. */
  readonly most = { connections: 0, queuedBytes: 0, members: 0, registrations: 0, bitmaps: 0, readMs: 0 }

  /** @param options `mayFail`: hosts and links fail, so a chunk may be read anew; `ownBytes`: what one host alone reads */
  constructor(bounds: InvariantBounds, { mayFail, ownBytes }: { mayFail: boolean; ownBytes: number }) {
    this.#bounds = bounds
    this.#mayFail = mayFail
    this.#ownBytes = ownBytes
  }

  /** The registry has sent a chunk. */
  registryRead({ host, digest, bytes, atMs }: RegistryRead): void {
    this.#registryBytes += bytes
    const first = this.#readBy.get(digest)
    if (first === undefined) return void this.#readBy.set(digest, host)
    this.again.chunks++
    this.again.bytes += bytes
    if (this.#mayFail || this.#hasTooMany || this.#registryBytes <= this.#bounds.copies * this.#ownBytes) return
    this.#hasTooMany = true
    const what = `chunks are read from the registry more than once: more than ${this.#bounds.copies} copies; ${digest}, first by host ${first}`
    this.broken({ what, atMs, host })
  }

  /** A read that somebody waited for is over. */
  read(host: number, ms: number, atMs: number): void {
    this.most.readMs = Math.max(this.most.readMs, ms)
    if (ms > this.#bounds.readMs)
      this.broken({ what: `a read waited for ${Math.round(ms)} ms, more than ${this.#bounds.readMs}`, atMs, host })
  }

  /** Looks at the state of a host. */
  state({ host, peers }: SimulatedNode, atMs: number): void {
    const connections = host.getConnections()
    const { queuedBytes, roster } = peers.membership
    const { registrations } = peers.location.sizes
    let bitmaps = 0
    for (const { holdings } of peers.membership.connected()) bitmaps += holdings.size
    const has = { connections: connections.length, queuedBytes, members: roster.size, registrations, bitmaps }
    for (const [what, value] of Object.entries(has) as [keyof typeof has, number][])
      this.most[what] = Math.max(this.most[what], value)
    const bounds: [string, number, number][] = [
      ['connections', connections.length, limits.connections.inAll],
      ['bytes of region messages that wait', queuedBytes, limits.sendQueue.inAll],
      ['members in the list', roster.size, limits.roster.inAll],
      ['registrations', registrations, limits.location.registrations],
      ...connections.map(({ streams }): [string, number, number] => [
        'streams of a connection',
        streams.length,
        2 * limits.streams.perConnection,
      ]),
    ]
    for (const [what, value, bound] of bounds)
      if (value > bound) this.broken({ what: `${what}: ${value}, more than ${bound}`, atMs, host: host.index })
  }

  broken(violation: Violation): void {
    this.count++
    if (this.told.length < maxTold) this.told.push(violation)
  }
}
