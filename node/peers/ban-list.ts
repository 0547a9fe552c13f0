import { ExpiringMap } from '../base/expiring-map.ts'
import { limits } from './limits.ts'

/**
 * Peers that this host neither dials nor lets in for a while, by their identities. A ban ends a fault of a host that has
 * one identity. It does not keep out who makes identities at will: what such a one can do is bounded in `limits.ts`.
 */
export class BanList {
  readonly #banned = new ExpiringMap<string>({ maxEntries: limits.bans.inAll })

  add(peerId: string): void {
    this.#banned.set(peerId, true, limits.bans.ms)
  }

  has(peerId: string): boolean {
    return this.#banned.has(peerId)
  }
}
