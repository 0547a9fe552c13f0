import { isIPv6 } from 'node:net'

/** Handshakes under way from one source at once. An honest host has one or two; many hosts may share one address. */
export const maxPendingOfSource = 32
/** Handshakes under way at once, each a socket and a few KiB. */
export const maxPending = 512

/** One inbound connection whose other side has not proved anything yet. */
export interface PendingHandshake {
  source: string
  /** Closes the connection. */
  drop: () => void
}

/**
 * The inbound connections whose other side has not proved yet that it belongs to the region. Beyond a bound the oldest
 * one is dropped, not the newest refused: an honest host needs two round trips, so it is through before its turn comes,
 * however many connections a stranger holds open.
 */
export class PendingHandshakes {
  /** In the order in which they began. */
  readonly #bySource = new Map<string, Set<PendingHandshake>>()
  readonly #all = new Set<PendingHandshake>()
  /** Handshakes that were dropped for the sake of newer ones. */
  dropped = 0

  get count(): number {
    return this.#all.size
  }

  /** @returns ends the handshake's place when it is called: it has succeeded or failed */
  add(handshake: PendingHandshake): () => void {
    let ofSource = this.#bySource.get(handshake.source)
    if (ofSource === undefined) {
      ofSource = new Set()
      this.#bySource.set(handshake.source, ofSource)
    }
    if (ofSource.size >= maxPendingOfSource) this.#dropOldest(ofSource)
    else if (this.#all.size >= maxPending) this.#dropOldest(this.#all)
    // A source whose last handshake was dropped has been forgotten.
    this.#bySource.set(handshake.source, ofSource)
    ofSource.add(handshake)
    this.#all.add(handshake)
    return () => this.#remove(handshake)
  }

  #dropOldest(handshakes: Set<PendingHandshake>): void {
    for (const oldest of handshakes) {
      this.#remove(oldest)
      this.dropped++
      oldest.drop()
      return
    }
  }

  #remove(handshake: PendingHandshake): void {
    this.#all.delete(handshake)
    const ofSource = this.#bySource.get(handshake.source)
    ofSource?.delete(handshake)
    if (ofSource?.size === 0) this.#bySource.delete(handshake.source)
  }
}

/**
 * The source that a connection counts for: an IPv4 address, or the /64 that an IPv6 address is in, since whoever has one
 * address of it has all.
 * @param address without brackets or zone
 */
export function sourceOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  if (mapped !== null) return mapped[1]!
  if (!isIPv6(address)) return address
  const [head = '', tail] = address.split('%')[0]!.toLowerCase().split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const rest = tail === '' ? [] : tail.split(':')
    while (groups.length + rest.length < 8) groups.push('0')
    groups.push(...rest)
  }
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`
}
