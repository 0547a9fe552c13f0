import type { Status } from '../../node/control/api.ts'
import type { Amount } from '../../node/model/progress.ts'

/** Bytes a second between two looks at a daemon. */
export interface Rates {
  seconds: number
  /** Bytes a second that mounts read, by the source of each chunk. */
  served: Record<keyof Status['served'], number>
  fetched: Record<keyof Status['fetched'], number>
  sent: number
  /** Bytes a second of connected peers, by peer id. */
  peers: Record<string, { received: number; sent: number }>
}

/** Computes the rates between two looks. A daemon that was replaced meanwhile has counted from zero. */
export function ratesOf(before: Status, after: Status, seconds: number): Rates {
  const isSame = before.daemonPid === after.daemonPid
  const rate = (now: Amount, past: Amount | undefined): number =>
    Math.round(Math.max(0, now.bytes - (isSame ? (past?.bytes ?? 0) : 0)) / seconds)
  const rates = <Source extends string>(
    now: Record<Source, Amount>,
    past: Record<Source, Amount>,
  ): Record<Source, number> =>
    Object.fromEntries(
      Object.entries<Amount>(now).map(([source, amount]) => [source, rate(amount, past[source as Source])]),
    ) as Record<Source, number>
  const known = new Map(before.peers.map((peer) => [peer.peer, peer]))
  return {
    seconds,
    served: rates(after.served, before.served),
    fetched: rates(after.fetched, before.fetched),
    sent: rate(after.sent, before.sent),
    peers: Object.fromEntries(
      after.peers.map(({ peer, received, sent }) => {
        const past = known.get(peer)
        return [peer, { received: rate(received, past?.received), sent: rate(sent, past?.sent) }]
      }),
    ),
  }
}
