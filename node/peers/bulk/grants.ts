import type { BulkGrant } from '../../../protocol/messages/bulk.ts'
import { bulkLimits } from './bulk-limits.ts'

/** A grant that has been given to a peer. */
export interface GivenGrant {
  peer: string
  id: string
  secret: Uint8Array
}

/** The grants that peers have been given and have not used. Each can be used once, and for a few seconds. */
export class Grants {
  readonly #now: () => number
  /** In the order in which they were given; each with the time at which it ends (ms). */
  readonly #given = new Map<string, GivenGrant & { endsAtMs: number }>()

  constructor({ now = () => performance.now() }: { now?: () => number } = {}) {
    this.#now = now
  }

  get count(): number {
    return this.#given.size
  }

  add(peer: string, { id, secret }: Pick<BulkGrant, 'id' | 'secret'>, lifetimeMs: number): void {
    this.#expire()
    const ofPeer = [...this.#given.values()].filter((grant) => grant.peer === peer)
    if (ofPeer.length >= bulkLimits.grants.perPeer) this.#given.delete(ofPeer[0]!.id)
    else if (this.#given.size >= bulkLimits.grants.inAll)
      for (const first of this.#given.keys()) {
        this.#given.delete(first)
        break
      }
    const key = Buffer.from(id).toString('hex')
    this.#given.set(key, { peer, id: key, secret, endsAtMs: this.#now() + lifetimeMs })
  }

  /** Ends the grant. @param id in hex @returns undefined where there is none, or no longer */
  use(id: string): GivenGrant | undefined {
    this.#expire()
    const grant = this.#given.get(id)
    this.#given.delete(id)
    return grant
  }

  revoke(peer: string): void {
    for (const grant of this.#given.values()) if (grant.peer === peer) this.#given.delete(grant.id)
  }

  #expire(): void {
    for (const { id, endsAtMs } of this.#given.values()) if (endsAtMs <= this.#now()) this.#given.delete(id)
  }
}
