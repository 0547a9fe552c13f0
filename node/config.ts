import { readFileSync } from 'node:fs'
import { arch, availableParallelism, hostname } from 'node:os'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { parseKey } from '../protocol/attestation.ts'
import { P2pfsError } from '../protocol/errors.ts'
import { formatByteSize, parseByteSize } from './base/byte-size.ts'
import { parseDuration } from './base/duration.ts'
import { defaultLayerLimits } from './rootfs/layer-limits.ts'
import { logLevels } from './base/log.ts'
import { parseRegistryName } from './registry/endpoint.ts'
import { parseMirror } from './registry/mirrors.ts'
import { normalizePlatform } from './registry/platform.ts'
import { defaultLimits } from './registry/request-gate.ts'

const goArchitectures: Record<string, string> = { x64: 'amd64', arm64: 'arm64', arm: 'arm/v7', ia32: '386' }

interface Option<T> {
  /**
   * `list`: given several times or separated by commas; in the file a JSON array of strings. `size`: bytes, `duration`:
   * seconds, or with a unit.
   */
  type: 'text' | 'path' | 'list' | 'count' | 'size' | 'duration'
  fallback: T
  /** What the help shows instead of the fallback where that differs from host to host. */
  fallbackText?: string
  choices?: readonly string[]
  /** Checks each item of a list. @throws invalid saying what is wrong */
  check?: (item: string) => unknown
  /** Returns the normal form of a text. @throws invalid saying what is wrong */
  normalize?: (value: string) => string
  value: string
  meaning: string
}

/** Node's timers go to 24 days. */
const maxDurationSeconds = 86_400

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
const duration = (fallback: number, meaning: string): Option<number> => ({
  type: 'duration',
  value: 'TIME',
  fallback,
  fallbackText: `${fallback}s`,
  meaning,
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

/**
 * Every option of the daemon, once: its flag (`--state-dir`), environment variable (`P2PFS_STATE_DIR`), key in the
 * configuration file (`stateDir`) and documentation follow from this.
 */
export const options = {
  stateDir: text('DIR', '/var/lib/p2pfs', 'chunks, catalog, peer identity and the FUSE mount point', { type: 'path' }),
  control: text(
    'SOCKET',
    '/run/p2pfs/p2pfs.sock',
    'unix socket on which seed, mount, umount and status reach the daemon',
    { type: 'path' },
  ),
  region: text('NAME', 'default', 'peers exchange chunks with peers of the same region only'),
  name: text('NAME', hostname(), 'what other members of the region call this host', { fallbackText: 'the host name' }),
  listen: list('MULTIADDR', ['/ip4/0.0.0.0/tcp/4100'], 'where peers can reach this host'),
  bootstrap: list('MULTIADDR', [], 'members of the region to meet first; the others are learned from them'),
  insecureRegistry: list('HOST[:PORT]', [], 'registries that are spoken to in plain HTTP', {
    check: parseRegistryName,
  }),
  registryMirror: list(
    'REGISTRY=URL',
    [],
    'where to ask first, as docker.io=https://mirror.example, or https://harbor.example/v2/PROJECT for a project ' +
      'that is a mirror; several are tried in order, then the registry itself',
    { check: parseMirror },
  ),
  registryHostsDir: list(
    'DIR',
    [],
    'directories like /etc/containerd/certs.d: hosts.toml names the mirrors of a registry, which come after ' +
      'those of --registry-mirror, and its certificates',
  ),
  registryCa: list(
    'FILE',
    [],
    'certificate authorities in PEM that registries are trusted by, besides those of the system and of /etc/docker/certs.d',
  ),
  registryConnections: count(defaultLimits.connections, 'requests to one registry that are under way at once'),
  registryRequestsPerSecond: count(
    defaultLimits.requestsPerSecond,
    'requests to one registry, retries among them; more wait',
  ),
  readDeadline: duration(
    60,
    'how long a read waits for data that nobody delivers, before it fails with an I/O error; shorter outages are pauses',
  ),
  platform: text(
    'OS/ARCH',
    `linux/${goArchitectures[arch()] ?? arch()}`,
    'which image of a multi-platform index to use',
    { fallbackText: "this host's", normalize: normalizePlatform },
  ),
  trustIndexKey: list(
    'KEY',
    [],
    "whose word to take for what rootfs an image is: peer ids, as p2pfs status shows them; this host's own is always among them. With none given, those of connected members, and whatever they pass on",
    { check: parseKey },
  ),
  fuseDriver: text(
    'dev|native',
    'dev',
    'dev: /dev/fuse itself, survives a crash of the daemon, needs root; native: libfuse through fuse-native',
    {
      choices: ['dev', 'native'],
    },
  ),
  fuseWorkers: {
    type: 'count',
    value: 'N',
    fallback: Math.min(4, Math.max(2, availableParallelism())),
    fallbackText: 'the number of cores, 2 to 4',
    meaning: 'threads that serve reads',
  } as Option<number>,
  bootProfiles: text(
    'on|off',
    'on',
    'whether what a mount reads first is recorded, shared with the region, and fetched ahead by mounts elsewhere',
    { choices: ['on', 'off'] },
  ),
  maxLayerSize: size(defaultLayerLimits.maxLayerBytes, 'a layer that is larger uncompressed, as 300GiB, is refused'),
  maxLayerMetadata: size(
    defaultLayerLimits.maxMetadataBytes,
    'so is one, or an image, with more names, links, attributes and entries: some 256 bytes for each file, of which an import takes five times as much memory',
    "a thirty-second of the host's memory, 64MiB to 512MiB",
  ),
  logLevel: text('LEVEL', 'info', `how much to log: ${logLevels.join(', ')}`, { choices: logLevels }),
} as const

export type Config = { [Name in keyof typeof options]: (typeof options)[Name] extends Option<infer T> ? T : never }
type Name = keyof Config

const names = Object.keys(options) as Name[]
const flagOf = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
const variableOf = (name: string): string => `P2PFS_${flagOf(name).replaceAll('-', '_').toUpperCase()}`

/**
 * Flags over environment over file over fallback.
 * @param file where the file is read from unless `--config` or `P2PFS_CONFIG` says otherwise; that one may be absent
 * @throws invalid for an unknown or malformed option, saying which and where it was given
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
    if (flag !== undefined) config[name] = parseValue(name, flag, `--${flagOf(name)}`)
    else if (variable !== undefined && variable !== '') config[name] = parseValue(name, [variable], variableOf(name))
    else if (stored[name] !== undefined)
      config[name] = parseValue(name, [stored[name]].flat().map(String), `${name} in ${fileName ?? file}`)
    else config[name] = options[name].fallback
  }
  return config as Config
}

function parseFlags(argv: readonly string[]): Record<string, string[] | undefined> {
  const declared = Object.fromEntries(
    [...names.map(flagOf), 'config'].map((flag) => [flag, { type: 'string' as const, multiple: true }]),
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
    throw new P2pfsError(
      'invalid',
      `the configuration file ${path} has an unknown option: ${unknown}; known are ${names.join(', ')}`,
    )
  }
  return values as Record<string, unknown>
}

function parseValue(name: Name, given: readonly string[], where: string): string | number | string[] {
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
  if (value === '') throw new P2pfsError('invalid', `${where} is empty; it takes ${option.value}`)
  if (option.type === 'path') return resolve(value)
  if (option.choices !== undefined && !option.choices.includes(value)) {
    throw new P2pfsError('invalid', `${where} is ${value}; it takes one of ${option.choices.join(', ')}`)
  }
  if (option.type === 'size') {
    const bytes = parseByteSize(value)
    if (bytes === undefined || bytes === 0)
      throw new P2pfsError('invalid', `${where} is ${value}; it takes a size as 512MiB or 256GiB`)
    return bytes
  }
  if (option.type === 'duration') {
    const seconds = parseDuration(value)
    if (seconds === undefined || seconds === 0 || seconds > maxDurationSeconds)
      throw new P2pfsError('invalid', `${where} is ${value}; it takes a time as 60s or 2m, a day at most`)
    return seconds
  }
  if (option.type !== 'count') return option.normalize?.(value) ?? value
  if (!/^[1-9][0-9]{0,5}$/.test(value))
    throw new P2pfsError('invalid', `${where} is ${value}; it takes a number from 1`)
  return Number(value)
}

/** One line per option, for `--help` and the documentation. */
export function describeOptions(): string {
  const rows = names.map((name) => {
    const option: Option<unknown> = options[name]
    const fallback =
      option.fallbackText ??
      (Array.isArray(option.fallback) ? option.fallback.join(',') || 'none' : String(option.fallback))
    return [`--${flagOf(name)} ${option.value}`, `${option.meaning} [${fallback}]`] as const
  })
  rows.push(['--config FILE', 'JSON file of these options, in camelCase [/etc/p2pfs/config.json where it exists]'])
  const width = Math.max(...rows.map(([flag]) => flag.length))
  return rows.map(([flag, meaning]) => `  ${flag.padEnd(width)}  ${meaning}`).join('\n')
}
