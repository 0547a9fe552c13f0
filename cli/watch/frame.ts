import type { SeedJobReport, Status } from '../../node/control/api.ts'
import { shortName } from '../output.ts'
import { describeProgress, type ProgressMeter } from '../progress/meter.ts'
import { formatSize } from '../size.ts'
import type { Rates } from './rates.ts'

/** So many peers and mounts are shown, those that most passes through first. */
const maxShown = 12

/** The data of one frame. */
export interface Look {
  status: Status
  rates: Rates
  seeds: readonly SeedJobReport[]
  /** That of a seed or an import, which lives as long as it. */
  meterOf: (name: string) => ProgressMeter
  /** Lines that say which reads wait. */
  waiting: readonly string[]
}

/** The lines of one look: rates by source and peer, what is under way, and how much of each mount is here. */
export function frameOf({ status, rates, seeds, meterOf, waiting }: Look): string[] {
  const { name, region, uptimeSeconds, imports, mounts, members, peers } = status
  const placing = seeds.filter(({ state }) => state === 'placing')
  return [
    `${shortName(name)}, region ${shortName(region)}, up ${uptimeSeconds} s`,
    '',
    `reads         here ${perSecond(rates.served.local)}, ${remote(rates.served)}`,
    `fetched       ${remote(rates.fetched)}`,
    `sent          ${perSecond(rates.sent)} to peers`,
    ...waiting,
    '',
    `peers         ${members === 0 ? 'none' : `${members} known, ${peers.length} connected`}`,
    ...peerLines(status, rates),
    ...section('imports', imports, ({ reference, forPeers: _forPeers, ...progress }) => [
      `  ${shortName(reference)}: ${describeProgress(meterOf(`import ${reference}`).add({ step: 'import', ...progress }))}`,
    ]),
    ...section('seeds to this host', status.seeds, ({ reference, ...progress }) => [
      `  ${shortName(reference)}: ${describeProgress(meterOf(`fetch ${reference}`).add({ step: 'fetch', ...progress }))}`,
    ]),
    ...section('seeds of the region', placing, (job) => [`  ${describePlacing(job)}`]),
    ...section('mounts', mounts, (mount) => {
      const { directory, reference, localBytes, sizeBytes } = mount
      const share = sizeBytes === 0 ? 100 : Math.floor((100 * localBytes) / sizeBytes)
      const left = formatSize(Math.max(0, sizeBytes - localBytes))
      return [`  ${directory}: ${shortName(reference)}, ${share} % here, ${left} left`]
    }),
  ]
}

const perSecond = (bytes: number): string => `${formatSize(bytes)}/s`

function remote({ peer, neighbour, registry }: Record<'peer' | 'neighbour' | 'registry', number>): string {
  const near = neighbour === 0 ? '' : `neighbours ${perSecond(neighbour)}, `
  return `peers ${perSecond(peer)}, ${near}registry ${perSecond(registry)}`
}

function peerLines({ peers }: Status, rates: Rates): string[] {
  const rateOf = (peer: string): { received: number; sent: number } => rates.peers[peer] ?? { received: 0, sent: 0 }
  const busy = peers
    .map(({ peer, name }) => ({ name, ...rateOf(peer) }))
    .filter(({ received, sent }) => received + sent > 0)
    .toSorted((a, b) => b.received + b.sent - a.received - a.sent)
  return cut(
    busy.map(
      ({ name, received, sent }) => `  ${shortName(name)}: from it ${perSecond(received)}, to it ${perSecond(sent)}`,
    ),
  )
}

function describePlacing({ reference, verifiedCopies, copies, hosts }: SeedJobReport): string {
  const wanted = copies === 'all' ? 'all members' : Array.isArray(copies) ? copies.length : copies
  const left = hosts.reduce((sum, { total, verified }) => sum + Math.max(0, total - verified), 0)
  return `${shortName(reference)}: ${verifiedCopies} of ${wanted} copies verified, ${left} chunks left on ${hosts.length} hosts`
}

function section<Item>(title: string, items: readonly Item[], lines: (item: Item) => string[]): string[] {
  return items.length === 0 ? [] : ['', title, ...cut(items.flatMap(lines))]
}

function cut(lines: readonly string[]): string[] {
  return lines.length <= maxShown ? [...lines] : [...lines.slice(0, maxShown), `  and ${lines.length - maxShown} more`]
}
