import { ExpiringMap } from '../base/expiring-map.ts'

/** How long a peer that broke the protocol is kept away (ms). */
const banMs = 10 * 60_000
/** Bans that are remembered; beyond this the oldest ends early. */
const maxBans = 1024

/** Peers that this host neither dials nor lets in for a while. */
export class BanList {
  readonly #banned = new ExpiringMap<string>({ maxEntries: maxBans })

  add(peerId: string): void {
    this.#banned.set(peerId, true, banMs)
  }

  has(peerId: string): boolean {
    return this.#banned.has(peerId)
  }
}
