import type { LayerRanges } from '../layers/layer-ranges.ts'
import { fetchedOf, type FetchedParts } from '../operations/fetched.ts'
import type { LimitsOperation } from '../operations/limits.ts'
import type { PeerNetwork } from '../peers/network.ts'
import type { RegistryTraffic } from '../registry/registry-traffic.ts'
import { labelled, single, type Figure, type Sample } from './figure.ts'

export interface TrafficFiguresParts extends FetchedParts {
  ranges: Pick<LayerRanges, 'chunks' | 'read'>
  network: Pick<PeerNetwork, 'membership' | 'totals' | 'guests' | 'strangers'>
  limits: Pick<LimitsOperation, 'report'>
  /** Requests for this host, and those that members have it send. */
  registries: Record<'host' | 'members', RegistryTraffic>
}

/** Figures of the traffic between this host, its region and registries. */
export function trafficFigures(parts: TrafficFiguresParts): Figure[] {
  return [...exchangeFigures(parts), ...registryFigures(parts), ...limitFigures(parts)]
}

function exchangeFigures(parts: TrafficFiguresParts): Figure[] {
  const { network } = parts
  return [
    labelled(
      'counter',
      'p2pfs_fetched_bytes_total',
      'Bytes of chunks that this host has fetched, by where they came from; imports count as registry.',
      'source',
      () => {
        const { peer, neighbour, registry } = fetchedOf(parts)
        return { peer: peer.bytes, neighbour: neighbour.bytes, registry: registry.bytes }
      },
    ),
    labelled('counter', 'p2pfs_sent_bytes_total', 'Bytes of chunks that this host has sent.', 'to', () => ({
      member: network.totals().bytesSent,
      guest: network.guests().bytesSent,
    })),
    labelled('gauge', 'p2pfs_peers', 'Members of the region besides this host.', 'state', () => {
      const connected = network.membership.peers().length
      return { connected, not_connected: Math.max(0, network.membership.roster.size - 1 - connected) }
    }),
    single('gauge', 'p2pfs_guests', 'Hosts of other regions that are connected.', () => network.guests().connected),
    single(
      'counter',
      'p2pfs_strangers_total',
      'Connections that were turned away, since their other side did not prove the key.',
      () => network.strangers.turnedAway,
    ),
  ]
}

function registryFigures({ registries, ranges }: TrafficFiguresParts): Figure[] {
  return [
    {
      type: 'counter',
      name: 'p2pfs_registry_requests_total',
      help:
        'Requests to registries and what they redirect to, by who they are for and the status of the answer; without an ' +
        'answer, by the code of the error.',
      labels: ['for', 'code'],
      read: () => Object.entries(registries).flatMap(([whom, { outcomes }]) => outcomesOf(whom, outcomes)),
    },
    single(
      'gauge',
      'p2pfs_registries_silent',
      'Servers that did not answer when they were last asked, in the last five minutes.',
      () => registries.host.silent,
    ),
    single('counter', 'p2pfs_registry_ranges_total', 'Reads of layers at random.', () => ranges.read.requests),
    single(
      'counter',
      'p2pfs_registry_range_bytes_total',
      'Bytes of layers that were read at random, compressed as they are sent.',
      () => ranges.read.bytes,
    ),
  ]
}

function outcomesOf(whom: string, outcomes: ReadonlyMap<string, number>): Sample[] {
  return [...outcomes].map(([code, value]) => ({ labels: { for: whom, code }, value }))
}

function limitFigures({ limits }: TrafficFiguresParts): Figure[] {
  const byLimit = (figure: (limit: ReturnType<typeof limits.report>[number]) => number) => () =>
    Object.fromEntries(limits.report().map((limit) => [limit.name, figure(limit)]))
  return [
    labelled(
      'gauge',
      'p2pfs_limit_waiting',
      'Pieces that wait for a limit on bandwidth now.',
      'limit',
      byLimit(({ waiting }) => waiting),
    ),
    labelled(
      'counter',
      'p2pfs_limit_read_waits_total',
      'Pieces that had to wait for a limit on bandwidth while somebody waited for them.',
      'limit',
      byLimit(({ urgentWaits }) => urgentWaits),
    ),
    labelled(
      'counter',
      'p2pfs_limit_read_wait_seconds_total',
      'How long these have waited together.',
      'limit',
      byLimit(({ urgentWaitedMs }) => urgentWaitedMs / 1000),
    ),
  ]
}
