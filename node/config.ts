import { readFileSync } from 'node:fs'
import { arch, availableParallelism, hostname } from 'node:os'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { parseKey } from '../protocol/peer-key.ts'
import { P2pfsError } from '../protocol/errors.ts'
import { maxTextLength } from '../protocol/messages/region.ts'
import { formatByteSize, parseByteSize } from './base/byte-size.ts'
import { parseDuration } from './base/duration.ts'
import { defaultKeepFree, parseKeepFree } from './base/keep-free.ts'
import { defaultLayerLimits } from './rootfs/layer-limits.ts'
import { logLevels } from './base/log.ts'
import { parseRegistryName } from './registry/endpoint.ts'
import { parseListenAddress } from './base/listen-address.ts'
import { parseRateLimit } from './base/byte-rate.ts'
import { parseNeighbour } from './neighbours/neighbour-options.ts'
import { parseMirror } from './registry/mirrors.ts'
import { normalizePlatform } from './model/platform.ts'
import { defaultLimits } from './registry/request-gate.ts'

const goArchitectures: Record<string, string> = { x64: 'amd64', arm64: 'arm64', arm: 'arm/v7', ia32: '386' }

interface Option<T> {
  /**
   * A `list` may be given several times or with commas; in the file it is a JSON array of strings. A `size` without a
   * unit is in bytes, a `duration` in seconds. A `flag` takes no value on the command line; elsewhere it is true or
   * false.
   */
  type: 'flag' | 'text' | 'path' | 'list' | 'count' | 'size' | 'duration'
  fallback: T
  /** Shown in the help instead of a fallback that differs from host to host. */
  fallbackText?: string
  choices?: readonly string[]
  /** Checks the value, or each item of a list. @throws invalid saying what is wrong */
  check?: (item: string) => unknown
  /** Returns the normal form of a text. @throws invalid saying what is wrong */
  normalize?: (value: string) => string
  /** Placeholder for the value in the help. */
  value: string
  meaning: string
  /** For tests: the help says nothing of it. */
  isHidden?: boolean
  /** Durations only. */
  mayBeZero?: boolean
}

/** The longest duration (s): one day. Node's timers end at 24 days. */
const maxDurationSeconds = 86_400

/** @throws invalid for a text that is too long to be told to peers */
function checkTextLength(value: string): void {
  if (value.length > maxTextLength)
    throw new P2pfsError(
      'invalid',
      `${value.slice(0, 20)}... has ${value.length} characters; a name or region has at most ${maxTextLength}`,
    )
}

/** A multiaddr that TCP can reach. */
const addressPattern = /^\/(?:ip4|ip6|dns[46]?)\/[^/]+\/tcp\/(\d{1,5})(?:\/|$)/

/** @throws invalid */
function checkAddress(item: string): void {
  if (Number(addressPattern.exec(item)?.[1] ?? Infinity) > 65_535)
    throw new P2pfsError(
      'invalid',
      `not an address of a peer: ${JSON.stringify(item.slice(0, 100))}; it is written as /ip4/10.0.0.1/tcp/4100`,
    )
}

const text = (
  value: string,
  fallback: string,
  meaning: string,
  more: Partial<Option<string>> = {},
): Option<string> => ({
  type: 'text',
  value,
  fallback,
  meaning,
  ...more,
})
const size = (fallback: number, meaning: string, fallbackText = formatByteSize(fallback)): Option<number> => ({
  type: 'size',
  value: 'SIZE',
  fallback,
  fallbackText,
  meaning,
})
const duration = (fallback: number, meaning: string, more: Partial<Option<number>> = {}): Option<number> => ({
  type: 'duration',
  value: 'TIME',
  fallback,
  fallbackText: `${fallback}s`,
  meaning,
  ...more,
})
const count = (fallback: number, meaning: string): Option<number> => ({ type: 'count', value: 'N', fallback, meaning })
const list = (
  value: string,
  fallback: readonly string[],
  meaning: string,
  more: Partial<Option<readonly string[]>> = {},
): Option<readonly string[]> => ({
  type: 'list',
  value,
  fallback,
  meaning,
  ...more,
})

/** Addresses to listen on if none are given. */
const listenFallback = { everywhere: '/ip4/0.0.0.0/tcp/4100', loopback: '/ip4/127.0.0.1/tcp/4100' } as const

/**
 * Declares every option of the daemon once. Its flag (`--state-dir`), its environment variable (`P2PFS_STATE_DIR`), its
 * key in the configuration file (`stateDir`) and its line in the help follow from this table.
 */
export const options = {
  stateDir: text('DIR', '/var/lib/p2pfs', 'holds chunks, the catalog, the peer identity and the FUSE mount point', {
    type: 'path',
  }),
  control: text('SOCKET', '/run/p2pfs/p2pfs.sock', 'unix socket on which the other commands reach the daemon', {
    type: 'path',
  }),
  controlGroup: text(
    'GROUP',
    '',
    'group, by name or number, whose members may use that socket, too: they are root in effect',
    { fallbackText: 'none' },
  ),
  region: text('NAME', 'default', 'the daemon exchanges chunks only with peers of the same region', {
    check: checkTextLength,
  }),
  regionKeyFile: text(
    'FILE',
    '',
    'key of the region, made by p2pfs keygen: only hosts that have it are let in. Without it the daemon is reached on ' +
      'loopback only',
    { type: 'path', fallbackText: 'none' },
  ),
  regionMembers: text(
    'FILE',
    '',
    'file with the peer ids (see p2pfs status) of the hosts that may be members, one a line; all others are turned ' +
      'away, even with the key',
    { type: 'path', fallbackText: 'everybody who has the key' },
  ),
  openRegion: {
    type: 'flag',
    value: '',
    fallback: false,
    meaning:
      'lets everybody who reaches this host be a member of the region, without a key: he can read every image that ' +
      'the region has',
  } as Option<boolean>,
  name: text('NAME', hostname(), 'name of this host in the status of its peers', {
    fallbackText: 'the host name',
    check: checkTextLength,
  }),
  listen: list('MULTIADDR', [], 'addresses at which peers reach this host', {
    check: checkAddress,
    fallbackText: `${listenFallback.everywhere} with a region key, else ${listenFallback.loopback}`,
  }),
  bulk: text(
    'on|off|plain',
    'on',
    'whether chunks that nobody waits for go over connections beside libp2p, which are several times as fast; plain ' +
      'does not encrypt them, for networks that do: all hosts must say so',
    { choices: ['on', 'off', 'plain'] },
  ),
  bulkListen: text('MULTIADDR', '', 'address of such connections, such as /ip4/0.0.0.0/tcp/4101', {
    check: checkAddress,
    fallbackText: 'those of --listen, at the port after the first, or at any if that is in use',
  }),
  bootstrap: list('MULTIADDR', [], 'members of the region to connect to first; they name the other members', {
    check: checkAddress,
  }),
  neighbourRegion: list(
    'REGION=MULTIADDR',
    [],
    'members of other regions, which are asked for chunks before the registry: this host is their guest',
    { check: (item) => checkAddress(parseNeighbour(item).value) },
  ),
  neighbourKeyFile: list('REGION=FILE', [], 'keys for guests of those regions, from their operators', {
    check: parseNeighbour,
  }),
  neighbourBandwidth: text(
    'RATE',
    '100Mbit',
    'how much this host takes from other regions, and how much it gives to their hosts, a second; p2pfs limits changes either ' +
      'while it runs',
    { check: parseRateLimit },
  ),
  guestKeyFile: text(
    'FILE',
    '',
    'key of the guests of this region, made by p2pfs keygen: hosts of other regions that have it may read all chunks that ' +
      'this host has, and do nothing else',
    { type: 'path', fallbackText: 'none: no guests, unless the region has no key' },
  ),
  uploadLimit: text(
    'RATE',
    'none',
    'what this host gives to peers in a second; p2pfs limits changes it while it runs',
    {
      check: parseRateLimit,
    },
  ),
  downloadLimit: text('RATE', 'none', 'the same, for chunks that it takes from peers', { check: parseRateLimit }),
  registryLimit: text('RATE', 'none', 'the same, for what it reads from registries', { check: parseRateLimit }),
  seedLimit: text('RATE', 'none', 'the same, for what seeds fetch to this host, from wherever it comes', {
    check: parseRateLimit,
  }),
  insecureRegistry: list('HOST[:PORT]', [], 'registries that the daemon speaks plain HTTP with', {
    check: parseRegistryName,
  }),
  registryMirror: list(
    'REGISTRY=URL',
    [],
    'mirror to ask before a registry, such as docker.io=https://mirror.example, or https://harbor.example/v2/PROJECT for ' +
      'a project that is a mirror; several mirrors are asked in order',
    { check: parseMirror },
  ),
  registryHostsDir: list(
    'DIR',
    [],
    'directories like /etc/containerd/certs.d: hosts.toml names the mirrors of a registry, which come after ' +
      'those of --registry-mirror, and its certificates',
  ),
  importForPeers: text(
    'none|listed|all',
    'listed',
    'registries that this host imports from for peers, with its own credentials. listed: those that it has credentials or a ' +
      'mirror for, by name, and those of --peer-registry. all: these, and any at a public address',
    { choices: ['none', 'listed', 'all'] },
  ),
  peerRegistry: list(
    'HOST[:PORT]',
    [],
    'registries, such as docker.io, that this host imports from for peers although it has neither credentials nor a mirror ' +
      'for them',
    { check: parseRegistryName },
  ),
  seedForPeers: text(
    'on|off',
    'on',
    'whether seeds of other members may place images on this host: at most half of the disk, as long as a tenth of it, or ' +
      '10GiB, is free. They are read from a registry only where --import-for-peers has it listed',
    { choices: ['on', 'off'] },
  ),
  hotImages: text(
    'on|off',
    'on',
    'whether mounts are counted in the region, and images that are mounted often are placed on hosts ahead of the next mount',
    { choices: ['on', 'off'] },
  ),
  hotDisk: size(
    20 * 2 ** 30,
    'what such images may take on this host, pinned or no longer; those that are mounted less often make room, and are evicted',
  ),
  hotBandwidth: text('RATE', '12MiB', 'how fast such images come; p2pfs limits changes it while it runs', {
    check: parseRateLimit,
  }),
  hotDelay: duration(
    30,
    'how long after an image has become hot its placing begins: the mounts that made it hot need the links themselves',
  ),
  hotTagInterval: duration(
    180,
    'how often the tag of a hot image is looked at in its registry, by one host of the region; what it has moved to is placed',
  ),
  fullMesh: {
    ...count(0, 'members of the largest region in which all are connected to all; 0: as many as usual'),
    isHidden: true,
  },
  registryCa: list(
    'FILE',
    [],
    'PEM files of certificate authorities to trust, besides those of the system and of /etc/docker/certs.d',
  ),
  registryConnections: count(
    defaultLimits.connections,
    'how many requests to one registry may run at once; imports for peers have half as many besides',
  ),
  registryRequestsPerSecond: count(
    defaultLimits.requestsPerSecond,
    'how many requests a second one registry gets, retries included; further requests wait. Imports for peers have ' +
      'half as many besides',
  ),
  pull: text(
    'missing|always|newer',
    'newer',
    'when a mount that does not say it asks the registry what a tag stands for. newer: where nobody in the region has asked ' +
      'within --tag-max-age, unless all of the image is on this host. missing: only where nobody in the region knows the tag',
    { choices: ['missing', 'always', 'newer'] },
  ),
  resolveBudget: duration(
    2,
    'how long such a mount waits for each answer of the registry, where an earlier image is known; it is mounted then',
  ),
  tagMaxAge: duration(
    300,
    'a tag that this host, or a member whose word counts here, has asked the registry for within this time is not asked for ' +
      'again by mounts with newer; 0s: it is',
    { mayBeZero: true },
  ),
  readDeadline: duration(
    60,
    'how long a read waits for data that no source delivers; after that it fails with an I/O error',
  ),
  platform: text(
    'OS/ARCH',
    `linux/${goArchitectures[arch()] ?? arch()}`,
    'platform to choose from a multi-platform image if the command names none',
    { fallbackText: "this host's", normalize: normalizePlatform },
  ),
  trustIndexKey: list(
    'KEY',
    [],
    'peer ids (see p2pfs status) of hosts whose signatures are accepted, besides those of this host. Without this ' +
      'option, signatures of connected members are accepted, and verified later',
    { check: parseKey },
  ),
  verifyBelieved: text(
    'on|off',
    'on',
    'whether to verify images that are believed on the word of members, in the background: about three hosts of a region ' +
      'read all layers of each such image, at 8 MiB/s, some minutes after they first have it',
    { choices: ['on', 'off'] },
  ),
  fuseDriver: text(
    'dev|native',
    'dev',
    'dev uses /dev/fuse directly: it needs root, and mounts survive a crash of the daemon. native uses libfuse 2: it ' +
      'needs no root, and mounts end with the daemon',
    { choices: ['dev', 'native'] },
  ),
  fuseWorkers: {
    type: 'count',
    value: 'N',
    fallback: Math.min(4, Math.max(2, availableParallelism())),
    fallbackText: 'the number of cores, 2 to 4',
    meaning: 'how many threads serve reads (only with --fuse-driver dev)',
  } as Option<number>,
  nativeReads: text(
    'off|trees|all',
    'trees',
    'whether images that are whole on this host are read by its kernel, without the daemon. all: drives, too, whose files ' +
      'nobody can then open with O_DIRECT (cache=none of QEMU)',
    { choices: ['off', 'trees', 'all'] },
  ),
  nativeLimit: size(
    32 * 2 ** 30,
    'how much disk the files for that may take, besides the chunks; 15 % of the disk stay free of them in any case',
  ),
  storeLimit: size(
    0,
    'what chunks and the files for native reads may take on the disk; beyond it, what is used least and last is evicted',
    'none',
  ),
  storeKeepFree: text(
    'SIZE|PERCENT',
    defaultKeepFree,
    'how much of the disk stays free, whoever fills it; only what this host has fetched or made is removed for that',
    { fallbackText: '10%, or 10GiB where that is less', check: parseKeepFree },
  ),
  bootProfiles: text(
    'on|off',
    'on',
    'whether to record what a mount reads first, share it with the region, and fetch it ahead for later mounts',
    { choices: ['on', 'off'] },
  ),
  maxLayerSize: size(
    defaultLayerLimits.maxLayerBytes,
    'largest uncompressed layer that is imported; a larger layer is refused',
  ),
  maxLayerMetadata: size(
    defaultLayerLimits.maxMetadataBytes,
    'largest metadata of a layer or an image that is imported (names, links, attributes: about 256 bytes a file); ' +
      'an import takes five times as much memory',
    "a thirty-second of the host's memory, 64MiB to 512MiB",
  ),
  metricsListen: text(
    'HOST:PORT',
    '',
    'address of an HTTP server with metrics for Prometheus, probes, and a page that shows the status, such as 127.0.0.1:9464: ' +
      'whoever reaches it sees images, mounts and peers',
    { check: parseListenAddress, fallbackText: 'none' },
  ),
  logLevel: text('LEVEL', 'info', `how much to log: ${logLevels.join(', ')}`, { choices: logLevels }),
} as const

export type Config = { [Name in keyof typeof options]: (typeof options)[Name] extends Option<infer T> ? T : never }
type Name = keyof Config

const names = Object.keys(options) as Name[]
const flagOf = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
const variableOf = (name: string): string => `P2PFS_${flagOf(name).replaceAll('-', '_').toUpperCase()}`

/**
 * Reads the configuration. A flag wins over the environment, which wins over the file, which wins over the fallback.
 * @param file configuration file to read if neither `--config` nor `P2PFS_CONFIG` names one; it may be absent
 * @throws invalid for an unknown or malformed option; the message names the option and where it was given
 */
export function loadConfig(
  argv: readonly string[],
  environment: NodeJS.ProcessEnv,
  file = '/etc/p2pfs/config.json',
): Config {
  const flags = parseFlags(argv)
  const fileName = flags['config']?.[0] ?? environment['P2PFS_CONFIG']
  const stored = readFile(fileName ?? file, fileName !== undefined)
  const config: Record<string, unknown> = {}
  for (const name of names) {
    const flag = flags[flagOf(name)]
    const variable = environment[variableOf(name)]
    if (flag !== undefined) config[name] = parseValue(name, flag.map(String), `--${flagOf(name)}`)
    else if (variable !== undefined && variable !== '') config[name] = parseValue(name, [variable], variableOf(name))
    else if (stored[name] !== undefined)
      config[name] = parseValue(name, [stored[name]].flat().map(String), `${name} in ${fileName ?? file}`)
    else config[name] = options[name].fallback
  }
  return withListen(config as Config)
}

/** @throws invalid where the daemon could be reached by strangers although nobody has allowed that */
function withListen(config: Config): Config {
  const isPrivate = config.regionKeyFile !== ''
  if (isPrivate && config.openRegion)
    throw new P2pfsError('invalid', '--open-region lets everybody in, --region-key-file only hosts that have the key')
  if (isPrivate || config.openRegion)
    return { ...config, listen: config.listen.length > 0 ? config.listen : [listenFallback.everywhere] }
  const own = [...config.listen, ...(config.bulkListen === '' ? [] : [config.bulkListen])]
  const keys = new Set(config.neighbourKeyFile.map((item) => parseNeighbour(item).region))
  const neighbours = config.neighbourRegion
    .map((item) => parseNeighbour(item))
    .filter(({ region }) => !keys.has(region))
    .map(({ value }) => value)
  const exposed = [...own, ...config.bootstrap, ...neighbours].find((address) => !isLoopback(address))
  if (exposed !== undefined)
    throw new P2pfsError(
      'invalid',
      `without a region key, peers can be on this host only, and ${exposed} is not on loopback; make a key with ` +
        'p2pfs keygen, and start all hosts of the region with it as --region-key-file; or let everybody in with ' +
        '--open-region',
    )
  return { ...config, listen: config.listen.length > 0 ? config.listen : [listenFallback.loopback] }
}

/** Whether the text is a multiaddr of a loopback address. What is no multiaddr is refused elsewhere. */
function isLoopback(address: string): boolean {
  return /^\/ip4\/127\.\d+\.\d+\.\d+(\/|$)|^\/ip6\/::1(\/|$)|^(?!\/)/.test(address)
}

function isFlag(name: string): boolean {
  return name in options && options[name as Name].type === 'flag'
}

function parseFlags(argv: readonly string[]): Record<string, string[] | undefined> {
  const declared = Object.fromEntries(
    [...names, 'config'].map((name) => [
      flagOf(name),
      { type: isFlag(name) ? ('boolean' as const) : ('string' as const), multiple: true },
    ]),
  )
  try {
    return parseArgs({ args: [...argv], options: declared, allowPositionals: false }).values as Record<string, string[]>
  } catch (cause) {
    throw new P2pfsError('invalid', `${(cause as Error).message.split('. ')[0]}; see p2pfs daemon --help`, { cause })
  }
}

function readFile(path: string, required: boolean): Record<string, unknown> {
  let source: string
  try {
    source = readFileSync(path, 'utf8')
  } catch (cause) {
    if (!required && (cause as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw new P2pfsError('invalid', `cannot read the configuration file ${path}: ${(cause as Error).message}`, {
      cause,
    })
  }
  let values: unknown
  try {
    values = JSON.parse(source)
  } catch (cause) {
    throw new P2pfsError('invalid', `the configuration file ${path} is not JSON: ${(cause as Error).message}`, {
      cause,
    })
  }
  if (typeof values !== 'object' || values === null || Array.isArray(values)) {
    throw new P2pfsError('invalid', `the configuration file ${path} is not a JSON object`)
  }
  const unknown = Object.keys(values).find((key) => !(key in options))
  if (unknown !== undefined) {
    const shown = names.filter((name) => (options[name] as Option<unknown>).isHidden !== true)
    throw new P2pfsError(
      'invalid',
      `the configuration file ${path} has an unknown option: ${unknown}; the options are ${shown.join(', ')}`,
    )
  }
  return values as Record<string, unknown>
}

function parseValue(name: Name, given: readonly string[], where: string): boolean | string | number | string[] {
  const option: Option<unknown> = options[name]
  if (option.type === 'list') {
    const items = given
      .flatMap((part) => part.split(','))
      .map((part) => part.trim())
      .filter((part) => part !== '')
    for (const item of items) option.check?.(item)
    return items
  }
  const value = given.at(-1) ?? ''
  if (option.type === 'flag') {
    if (value !== 'true' && value !== 'false')
      throw new P2pfsError('invalid', `${where} is ${value}; it takes true or false`)
    return value === 'true'
  }
  if (value === '') throw new P2pfsError('invalid', `${where} is empty; it takes ${option.value}`)
  option.check?.(value)
  if (option.type === 'path') return resolve(value)
  if (option.choices !== undefined && !option.choices.includes(value)) {
    throw new P2pfsError('invalid', `${where} is ${value}; it takes one of ${option.choices.join(', ')}`)
  }
  if (option.type === 'size') {
    const bytes = parseByteSize(value)
    if (bytes === undefined || bytes === 0)
      throw new P2pfsError('invalid', `${where} is ${value}; it takes a size such as 512MiB or 256GiB`)
    return bytes
  }
  if (option.type === 'duration') {
    const seconds = parseDuration(value)
    const isTooShort = seconds === 0 && option.mayBeZero !== true
    if (seconds === undefined || isTooShort || seconds > maxDurationSeconds)
      throw new P2pfsError('invalid', `${where} is ${value}; it takes a time such as 60s or 2m, at most one day`)
    return seconds
  }
  if (option.type !== 'count') return option.normalize?.(value) ?? value
  if (!/^[1-9][0-9]{0,5}$/.test(value))
    throw new P2pfsError('invalid', `${where} is ${value}; it takes a whole number from 1`)
  return Number(value)
}

/** What is to be said of an option; `value` is the placeholder for what its flag takes. */
export interface DescribedOption {
  value?: string
  help: string
  fallback?: string
  choices?: readonly string[]
  completes?: 'file'
}

/** All options but hidden ones, by their flags without the dashes: for the help, completion and the manual. */
export function describeOptions(): Record<string, DescribedOption> {
  const described: Record<string, DescribedOption> = {}
  for (const name of names) {
    const { type, value, meaning, fallback, fallbackText, choices, isHidden }: Option<unknown> = options[name]
    if (isHidden === true) continue
    const usual = fallbackText ?? (Array.isArray(fallback) ? fallback.join(',') || 'none' : String(fallback))
    described[flagOf(name)] = {
      help: meaning,
      ...(type !== 'flag' && { value, fallback: usual }),
      ...(choices !== undefined && { choices }),
      ...((type === 'path' || value === 'FILE' || value === 'DIR') && { completes: 'file' }),
    }
  }
  described['config'] = {
    value: 'FILE',
    help: 'JSON file with these options, named in camelCase',
    fallback: '/etc/p2pfs/config.json if it exists',
    completes: 'file',
  }
  return described
}
