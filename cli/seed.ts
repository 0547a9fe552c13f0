import { resolve } from 'node:path'
import type { SeedJobReport, SeedJobRequest, SeedJobResult, SeedRequest, SeedResult } from '../node/control/api.ts'
import { parseSeedJobRequest, parseSeedRequest } from '../node/control/requests.ts'
import { checkRequest, imageArgument, imageOptions, imageRequest } from './arguments.ts'
import { authOptions, withAuth } from './auth.ts'
import { describeCommand, parseCommand, type Values } from './command.ts'
import { UsageError } from './failure.ts'
import { callWithProgress, progressOption } from './progress.ts'
import { describeSeedJob } from './seed-job.ts'
import { formatSize } from './size.ts'
import { parseMs, parseTime } from './time.ts'

const jobOptions = {
  copies: {
    value: 'N|all',
    help: 'how many hosts hold the image; those that hold most of it are taken first',
    fallback: '1',
  },
  on: { value: 'HOST[,...]', help: 'the hosts that hold the image, by name or peer id, instead of --copies' },
  hot: { help: 'also place metadata and boot profile on all members of the region' },
  full: { help: 'place whole images only', fallback: 'the default' },
  ttl: { value: 'TIME', help: 'how long the image stays pinned, such as 90m or 24h', fallback: '24h' },
  at: {
    value: 'TIME',
    help: 'when to begin: 2026-01-31T03:00Z, or +2h for two hours from now',
    fallback: 'now',
  },
  wait: {
    help:
      'end with 0 when the wanted copies are there and verified, and with 1, naming the hosts and what they hold, when ' +
      'that cannot be reached',
    fallback: 'the default',
  },
  detach: { help: 'end as soon as the order is taken' },
  timeout: {
    value: 'TIME',
    help: 'how long to wait, from the beginning; the order itself goes on after it',
    fallback: '1h',
  },
} as const

export const command = describeCommand({
  name: 'seed',
  usage: ['IMAGE'],
  text: `Fetches all of an image to this host, so that this host and its peers can mount it without the registry.
Ends when every chunk is on the disk. If all of it is here already, seed only asks the registry whether
the tag has changed.

Prints the name to mount by: the one with the digest. It asks no registry, here or on another host of the region.

With any of the options from --copies to --timeout it gives an order to the region instead: hosts hold the image, each
having hashed every chunk, and keep it pinned for a time. The order is kept on three hosts, goes on when hosts are lost
or start anew, and is shown by p2pfs seeds.`,
  positionals: imageArgument,
  options: {
    publish: {
      help:
        "then publish the index in the image's repository, signed with this host's key. Hosts that accept the key " +
        '(p2pfs daemon --trust-index-key) mount the image from its registry without reading its layers',
    },
    as: {
      value: 'drive,tree',
      help: 'prepare the image for drives (ext4), for trees (erofs), or for both, instead of --format',
    },
    ...jobOptions,
    ...authOptions,
    ...imageOptions('ext4'),
    ...progressOption,
  },
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const [name = ''] = parsed.positionals
  const { auth, rest } = await withAuth(name, parsed.values)
  const { publish = false, as, platform, format, progress: _progress, ...job } = rest
  const variant = { ...(platform !== undefined && { platform }), ...(format !== undefined && { format }) }
  const image = { ...imageRequest(name, variant, resolve), ...auth }
  const uses = as === undefined ? {} : { as: as.split(',') }
  if (Object.keys(job).length > 0) {
    if (publish) throw new UsageError('--publish is for a seed on this host; seed the image with --publish first')
    const request: SeedJobRequest = checkRequest(parseSeedJobRequest, { ...image, ...uses, ...parseJob(job) })
    const result = await callWithProgress('placeSeed', request, parsed, describeResult)
    return result.placed === false ? 1 : 0
  }
  const request: SeedRequest = checkRequest(parseSeedRequest, {
    ...image,
    publish,
    ...uses,
  })
  await callWithProgress('seed', request, parsed, describeSeeded)
  return 0
}

/** @throws UsageError */
function parseJob({
  copies,
  on,
  hot = false,
  full,
  ttl,
  at,
  wait,
  detach = false,
  timeout,
}: Values<typeof jobOptions>): object {
  if (hot && full === true) throw new UsageError('--hot and --full exclude each other')
  if (wait === true && detach) throw new UsageError('--wait and --detach exclude each other')
  if (detach && timeout !== undefined) throw new UsageError('--timeout is for --wait')
  return {
    ...(copies !== undefined && { copies: copies === 'all' ? copies : parseCopies(copies) }),
    ...(on !== undefined && { on: on.split(',').filter((host) => host !== '') }),
    hot,
    ...(ttl !== undefined && { ttlMs: parseMs(ttl, '--ttl') }),
    ...(at !== undefined && { atMs: parseTime(at, '--at', Date.now()) }),
    wait: !detach,
    ...(timeout !== undefined && { timeoutMs: parseMs(timeout, '--timeout') }),
  }
}

function parseCopies(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text))
    throw new UsageError(`--copies takes a number of hosts or all, not ${JSON.stringify(text)}`)
  return Number(text)
}

function describeResult(result: SeedJobResult): string[] {
  const { others = [], placed } = result
  const orders = [result, ...others]
  const lines = orders.flatMap((order) => describeSeedJob(order))
  if (placed !== false) return lines
  const missing = orders.filter(({ state }) => state !== 'placed')
  return [...lines, ...missing.map((order) => describeMissing(order, others.length > 0))]
}

function describeMissing({ id, format, verifiedCopies, state }: SeedJobReport, isOneOfMany: boolean): string {
  const verified = `${verifiedCopies} verified${isOneOfMany ? ` as ${format}` : ''}`
  const goesOn = state === 'cancelled' ? '' : `; the order goes on until p2pfs seeds cancel ${id}`
  return `the wanted copies are not there: ${verified}${goesOn}`
}

export function describeSeeded({ others = [], ...result }: SeedResult): string[] {
  const { reference, platform, format, sizeBytes, digest, mountBy, published } = result
  const seeded = `${reference} (${platform}, ${format}): ${formatSize(sizeBytes)}, all on this host, rootfs ${digest}`
  const more = others.flatMap((other) => describeSeeded(other)).filter((line) => !line.startsWith(mountLine))
  const mount = mountBy === undefined ? [] : [`${mountLine}${mountBy}`]
  if (published === undefined) return [seeded, ...more, ...mount]
  const { existed, digest: artifact, sizeBytes: artifactBytes, key } = published
  const state = existed ? 'was already published' : 'published'
  return [seeded, `${state}: ${artifact}, ${formatSize(artifactBytes)}, signed by ${key}`, ...more, ...mount]
}

/** Begins the line with the name by which the image is mounted without a question to its registry. */
const mountLine = 'mount by: '
