import type { SeedHost, SeedJobReport } from '../node/control/api.ts'
import { shortName } from './output.ts'

/** Hosts of one job that are shown, those that are not done first; `--json` has all. */
const maxShownHosts = 64

const places = ({ copies, hot }: SeedJobReport): string => {
  const whole = copies === 'all' ? 'all members' : Array.isArray(copies) ? `${copies.length} named hosts` : `${copies}`
  return `${whole}${hot ? ', metadata and boot profile on all' : ''}`
}

const why = ({ demand }: Pick<SeedJobReport, 'demand'>): string =>
  demand === undefined ? '' : `, hot: ${describeDemand(demand)}`

/** Why an image is placed that nobody has ordered. */
export const describeDemand = ({ mounts, hosts }: NonNullable<SeedJobReport['demand']>): string =>
  `${mounts} mounts in about 10 min on ${hosts} hosts`

/** A job for a person: one line, and one for each of its hosts. */
export function describeSeedJob(job: SeedJobReport): string[] {
  const { id, reference, platform, format, state, verifiedCopies, startsAt, endsAt, hosts, digest } = job
  const times = { scheduled: `, begins ${startsAt}`, cancelled: '' }
  const time = state === 'scheduled' || state === 'cancelled' ? times[state] : `, pinned until ${endsAt}`
  const shown = hosts.toSorted((a, b) => rank(a) - rank(b)).slice(0, maxShownHosts)
  return [
    `${id}  ${reference} (${platform}, ${format}): ${state}, verified copies ${verifiedCopies} of ${places(job)}${why(job)}${time}, rootfs ${digest}`,
    ...shown.map(describeHost),
    ...(hosts.length > shown.length ? [`  and ${hosts.length - shown.length} more hosts`] : []),
  ]
}

const rank = ({ state }: SeedHost): number => ['failed', 'gone', 'placing', 'held'].indexOf(state)

/** Why a host does not hold the image, by the code that it answers with. */
const reasons: Partial<Record<NonNullable<SeedHost['code']>, string>> = {
  busy: 'busy: its disk has too little room, or as much pinned or under way as it takes for others',
  denied: 'denied: it takes no seeds of others, --seed-for-peers off, or no hot images',
  missing: 'missing: it believes nobody who has the image, as with --trust-index-key, or no member delivers its chunks',
  unavailable: 'unavailable: it is not reached, or cannot fetch or keep the chunks; its log says which',
}

function describeHost({ name, peer, state, code, extent, held, verified, total }: SeedHost): string {
  const what = extent === 'hot' ? ' of metadata and boot profile' : ''
  const chunks = total === 0 ? 'nothing yet' : `${held} of ${total} chunks${what} held, ${verified} verified`
  const failed = `failed (${reasons[code ?? 'unavailable'] ?? code}), asked again later; `
  const had = state === 'gone' ? 'gone; had ' : state === 'failed' ? failed : ''
  return `  ${shortName(name)} (${peer}): ${had}${chunks}`
}
