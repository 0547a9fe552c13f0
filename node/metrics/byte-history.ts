import { systemClock, type Clock } from '../base/clock.ts'
import type { RemoteSource, Source } from '../model/chunk-request.ts'
import type { FuseDriver } from '../mount/fuse/driver.ts'
import { fetchedOf, type FetchedParts } from '../operations/fetched.ts'
import type { PeerNetwork } from '../peers/network.ts'

/** The time between two looks (ms), and how many are kept: twenty minutes. */
export const historyStepMs = 5_000
export const historySteps = 240

/** Bytes since the daemon started. */
export interface ByteTotals {
  read: Record<Source, number>
  fetched: Record<RemoteSource, number>
  sent: number
}

export interface ByteTotalsParts extends FetchedParts {
  driver: Pick<FuseDriver, 'counters'>
  network: Pick<PeerNetwork, 'totals'>
}

export function byteTotals(parts: ByteTotalsParts): ByteTotals {
  const { local, peer, neighbour, registry } = parts.driver.counters().served
  const fetched = fetchedOf(parts)
  return {
    read: { local: local.bytes, peer: peer.bytes, neighbour: neighbour.bytes, registry: registry.bytes },
    fetched: { peer: fetched.peer.bytes, neighbour: fetched.neighbour.bytes, registry: fetched.registry.bytes },
    sent: parts.network.totals().bytesSent,
  }
}

/** Bytes a second in each step, the oldest first. */
export interface ByteRates {
  read: Record<Source, number[]>
  fetched: Record<RemoteSource, number[]>
  sent: number[]
}

/** Keeps the bytes that were read, fetched and sent in the last {@link historySteps} steps. */
export class ByteHistory implements Disposable {
  readonly #totals: () => ByteTotals
  readonly #clock: Clock
  readonly #looks: { atMs: number; totals: ByteTotals }[] = []
  #cancel: (() => void) | undefined

  constructor({ totals, clock = systemClock }: { totals: () => ByteTotals; clock?: Clock }) {
    this.#totals = totals
    this.#clock = clock
  }

  start(): void {
    this.#looks.push({ atMs: this.#clock.now(), totals: this.#totals() })
    if (this.#looks.length > historySteps + 1) this.#looks.shift()
    this.#cancel = this.#clock.after(historyStepMs, () => this.start())
  }

  [Symbol.dispose](): void {
    this.#cancel?.()
  }

  rates(): ByteRates {
    const rate = (of: (totals: ByteTotals) => number): number[] =>
      this.#looks.slice(1).map(({ atMs, totals }, place) => {
        const before = this.#looks[place]!
        return Math.max(0, Math.round(((of(totals) - of(before.totals)) * 1000) / (atMs - before.atMs)))
      })
    return {
      read: {
        local: rate(({ read }) => read.local),
        peer: rate(({ read }) => read.peer),
        neighbour: rate(({ read }) => read.neighbour),
        registry: rate(({ read }) => read.registry),
      },
      fetched: {
        peer: rate(({ fetched }) => fetched.peer),
        neighbour: rate(({ fetched }) => fetched.neighbour),
        registry: rate(({ fetched }) => fetched.registry),
      },
      sent: rate(({ sent }) => sent),
    }
  }
}
