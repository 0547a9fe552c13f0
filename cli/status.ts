import type { BulkLink, MountWarning, Status } from '../node/control/api.ts'
import type { BootReplay } from '../node/model/boot-replay.ts'
import type { RemoteSource } from '../node/model/chunk-request.ts'
import type { Origin } from '../node/model/image.ts'
import type { WholeReadReason } from '../node/model/whole-read.ts'
import type { Amount } from '../node/model/progress.ts'
import { call } from '../node/control/client.ts'
import { describeBelief } from './belief.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson, printLines, shortName } from './output.ts'
import { describeLimit } from './limits.ts'
import { describeDemand } from './seed-job.ts'
import { formatAmount, formatSize } from './size.ts'
import { describeWaiting } from './waiting-reads.ts'

export const command = describeCommand({
  name: 'status',
  usage: [''],
  text: 'Shows the region, its peers, the images and mounts of this host, and where their data came from.',
  positionals: {},
  options: {
    watch: {
      help:
        'show each second what passes, by source and peer, and what is left of imports, seeds and mounts, until Ctrl-C; ' +
        'with --json one object a second, with "rates" in bytes a second',
    },
  },
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  if (parsed.values.watch === true) {
    const { watchStatus } = await import('./status-watch.ts')
    return await watchStatus(parsed, { describeWaiting })
  }
  const status = await call('status', {}, { socket: parsed.control })
  if (parsed.json) printJson(status)
  else printLines(describe(status))
  return 0
}

function describe(status: Status): string[] {
  const { served, fetched, readAtRandom } = status
  const readBytes = formatSize(readAtRandom.bytes)
  return [
    `${status.name} (${status.peerId}), region ${status.region}, up ${status.uptimeSeconds} s, p2pfs ${status.version}`,
    `listens on    ${status.addresses.join(' ') || 'nothing'}`,
    `lets in       ${describeAccess(status)}`,
    `bulk          ${describeBulk(status.bulk)}`,
    `delays        ${status.eventLoopDelayMs.p99} ms of the main thread at p99, ${status.eventLoopDelayMs.max} ms at most`,
    '',
    `served        local ${formatAmount(served.local)}, ${describeSources(served)}`,
    ...describeWaiting(status),
    `fetched       ${describeSources(fetched)}`,
    `ranges        ${readBytes} of layers in ${readAtRandom.requests} range requests to registries`,
    `sent          ${formatAmount(status.sent)} to peers`,
    `store         ${status.chunks} chunks${describeNative(status.nativeBytes)}; ${describeStore(status)}`,
    '',
    `peers         ${status.members === 0 ? 'none' : `${status.members} known, ${status.peers.length} connected`}`,
    ...status.peers.map(
      (peer) =>
        `  ${shortName(peer.name)} (${peer.peer}) for ${peer.connectedSeconds} s: ` +
        `received ${formatSize(peer.received.bytes)}, sent ${formatSize(peer.sent.bytes)}${describeLink(peer.bulk)}`,
    ),
    ...describeLimits(status),
    ...status.neighbours.map(({ region, members, known, received, passedOverSeconds, problem }) => {
      const passedOver = passedOverSeconds === 0 ? '' : `, passed over for ${passedOverSeconds} s`
      const trouble = problem === undefined ? '' : `; ${problem}`
      const connected = `${known} known, ${members.length} connected`
      return `neighbour     ${region}: ${connected}, received ${formatAmount(received)}${passedOver}${trouble}`
    }),
    ...(status.guests.connected === 0 && status.guests.sent.bytes === 0
      ? []
      : [`guests        ${status.guests.connected} connected, sent ${formatAmount(status.guests.sent)}`]),
    `images        ${status.images.length === 0 ? 'none' : ''}`,
    ...status.images.map(
      ({ reference, platform, format, localBytes, sizeBytes, digest, belief }) =>
        `  ${reference} (${platform}, ${format}): ${formatSize(localBytes)} of ${formatSize(sizeBytes)} here, ${digest}` +
        `; ${describeBelief(belief)}`,
    ),
    ...(status.pins.length === 0 ? [] : ['pinned']),
    ...status.pins.map(({ reference, extent, sizeBytes, until, job, demand }) => {
      const what = extent === 'hot' ? 'metadata and boot profile, ' : ''
      return `  ${reference}: ${what}${formatSize(sizeBytes)} ${describeEnd(until)}, ${/^0+$/.test(job) ? 'p2pfs pin' : `seed ${job}`}${demand === undefined ? '' : `, hot: ${describeDemand(demand)}`}`
    }),
    ...describeHot(status.hot),
    ...(status.toVerify === 0 ? [] : [`to verify     ${status.toVerify} images that are on the word of members`]),
    ...(status.imports.length === 0 ? [] : ['imports']),
    ...status.imports.map(
      ({ reference, forPeers, doneBytes, totalBytes }) =>
        `  ${reference}: ${formatSize(doneBytes)} of ${formatSize(totalBytes)}, ${forPeers} peers wait for it`,
    ),
    `mounts        ${status.mounts.length === 0 ? 'none' : ''}`,
    ...status.mounts.flatMap((mount) => [
      `  ${mount.directory}: ${mount.reference}, ${describeMount(mount)}, ${mount.digest}`,
      ...describeReads(mount),
    ]),
  ]
}

/** A pin without an end has one in the year 9999. */
const describeEnd = (until: string): string => (until.startsWith('9999-') ? 'without end' : `until ${until}`)

function describeStore({ storeBytes, limitBytes, evicted }: Status): string {
  const limit = limitBytes === undefined ? '' : ` of ${formatSize(limitBytes)}`
  return `${formatSize(storeBytes)}${limit} on the disk, evicted ${formatAmount(evicted)}`
}

/** Those that are set, and are of something that there is: most hosts have no neighbour regions and no guests. */
function describeLimits({ limits, neighbours, guests, hot }: Status): string[] {
  const isIdle: Partial<Record<string, boolean>> = {
    neighbour: neighbours.length === 0,
    guest: guests.connected === 0 && guests.sent.bytes === 0,
    hot: !hot.isOn,
  }
  const set = limits.filter(({ name, rate, isChanged }) => rate !== 'none' && (isChanged || isIdle[name] !== true))
  return set.length === 0 ? [] : ['limits', ...set.map((limit) => `  ${describeLimit(limit)}`)]
}

/** At most so many counted images are shown; `--json` has all. */
const maxShownCounts = 10

function describeHot({ isOn, counted, usedBytes, placedBytes, diskBytes }: Status['hot']): string[] {
  if (!isOn) return ['hot images    off']
  return [
    `hot images    ${formatSize(placedBytes)} of ${formatSize(diskBytes)} are placed here, ${formatSize(usedBytes)} pinned`,
    ...counted
      .slice(0, maxShownCounts)
      .map(
        ({ reference, mounts, hosts, isHot, digest }) =>
          `  ${reference}: counted for the region: ${describeDemand({ mounts, hosts })}${isHot ? ', hot' : ''}, ${digest}`,
      ),
  ]
}

function describeAccess({ access, strangers: { turnedAway } }: Status): string {
  const strangers = turnedAway === 0 ? '' : `; ${turnedAway} connections of strangers were turned away`
  return `${access === 'region-key' ? 'hosts that have the region key' : 'everybody who reaches it'}${strangers}`
}

const origins: Record<Origin, string> = {
  local: 'from this host',
  peer: 'from a peer',
  registry: 'published in the registry',
  built: 'built here from all layers',
}

const boots = { local: 'this host', peer: 'a peer', registry: 'the registry' }

const wholeReadReasons: Record<WholeReadReason, string> = {
  'no-ranges': 'its registry serves no ranges',
  'no-map': 'nobody knows how to read it at random',
  'no-windows': 'nobody has what decoding it at random needs',
  'wrong-bytes': 'a range of it was wrong twice',
  'large-chunk': 'it is compressed in one piece',
  'no-index': 'nobody has its index, so that metadata is made again',
}

const warnings: Record<MountWarning, string> = {
  'whole-layers': 'reads whole layers',
  'peers-lost': 'no peer is connected: data that is not here can only come from the registry',
}

function describeNative(bytes: number): string {
  return bytes === 0 ? '' : `; ${formatSize(bytes)} of files for native reads besides`
}

function describeSources({ peer, neighbour, registry }: Record<RemoteSource, Amount>): string {
  const near = neighbour.bytes === 0 ? '' : `from neighbour regions ${formatAmount(neighbour)}, `
  return `from peers ${formatAmount(peer)}, ${near}from the registry ${formatAmount(registry)}`
}

function describeReplay({ source, fetched, done, total }: BootReplay): string {
  const ahead = `${formatAmount(fetched)} fetched ahead`
  return `    boot profile from ${boots[source]}: ${ahead}; ${done.chunks} of ${total.chunks} chunks are here`
}

function describeReads({
  origin,
  resolution,
  manifestDigest,
  localBytes,
  sizeBytes,
  fetched,
  profile,
  warnings: named,
  wholeReads,
  contradicted,
}: Status['mounts'][number]): string[] {
  const tag =
    resolution === 'last-known'
      ? 'tag as last known'
      : resolution === 'registry'
        ? 'tag as the registry had it'
        : 'referred to by digest'
  return [
    `    index ${origins[origin]}; image manifest ${manifestDigest}, ${tag}`,
    `    ${formatSize(localBytes)} of ${formatSize(sizeBytes)} here; fetched ${describeSources(fetched)}`,
    ...(profile === undefined ? [] : [describeReplay(profile)]),
    ...(contradicted ? ['    ! its layers make another rootfs: it is a lie of its maker; end what runs on it'] : []),
    ...named.map((warning) => `    ! ${warnings[warning]}`),
    ...wholeReads.map(({ layer, reason, startedAt }) => `      ${layer} at ${startedAt}: ${wholeReadReasons[reason]}`),
  ]
}

function describeMount({
  as,
  format,
  writable,
  limitBytes,
  scratchBytes,
  owner,
  allowOthers,
  reads,
}: Status['mounts'][number]): string {
  const limit = limitBytes === undefined ? '' : `, at most ${formatSize(limitBytes)}`
  const scratch = scratchBytes === undefined ? '' : `, scratch of ${formatSize(scratchBytes)}`
  const whose = owner === undefined ? '' : `, owner ${owner.uid}:${owner.gid}`
  const open = allowOthers === true ? ', all of it for others, too' : ''
  const native = reads === 'native' ? ', read by the kernel alone' : ''
  return `${format} ${as}${writable ? ` (writable${limit})` : ''}${scratch}${whose}${open}${native}`
}

function describeBulk(bulk: Status['bulk']): string {
  if (bulk === undefined) return 'off: all chunks come over libp2p'
  const port = bulk.port === undefined ? 'nothing is served' : `port ${bulk.port}`
  return `${port}, ${bulk.mode === 'tls' ? 'TLS 1.3' : 'not encrypted'}`
}

/** Says only what an operator can change. */
function describeLink(link: BulkLink): string {
  if (link === 'refused') return ', no bulk: it has --bulk off or another mode'
  return link === 'unreachable' ? ', no bulk: its port is not reached' : ''
}
