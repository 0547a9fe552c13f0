import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import {
  endpointName,
  hubHost,
  namespaceOf,
  parseRegistryName,
  plainEndpoint,
  type Capability,
  type Endpoint,
} from './endpoint.ts'
import { HostsDirectory } from './hosts-directory.ts'
import { isRegistryName } from './reference.ts'

export interface MirrorOptions {
  /** `REGISTRY=URL`, in the order in which they are tried. */
  mirrors: readonly string[]
  /** Hosts, with the port where it is not 443, that are spoken to in plain HTTP. */
  insecureRegistries: readonly string[]
  /** Directories as containerd's `/etc/containerd/certs.d`. Their mirrors are tried after those above. */
  hostsDirectories: readonly string[]
}

/** The time for which a failing mirror is not asked, doubled for each failure (ms). */
const firstPauseMs = 30_000
const maxPauseMs = 600_000
/** While one request finds out whether a mirror works again, others pass it by for this long (ms). */
const probeMs = 10_000

interface Health {
  failures: number
  pausedUntilMs: number
}

/** @throws invalid for what is not `REGISTRY=URL` */
export function parseMirror(text: string): { registry: string; url: URL } {
  const [registry = '', ...rest] = text.split('=')
  const fail = (why: string): never => {
    throw new P2pfsError(
      'invalid',
      `not a mirror: ${JSON.stringify(registry.slice(0, 200))}: ${why}; ` +
        'it is given as docker.io=https://mirror.example',
    )
  }
  const source = rest.join('=')
  if (!isRegistryName(registry)) fail('before = stands a registry, HOST or HOST:PORT')
  if (!URL.canParse(source)) fail('after = stands a URL')
  const url = new URL(source)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') fail('its URL begins with https:// or http://')
  if (url.username !== '' || url.password !== '') fail('its credentials go into docker login, not into the URL')
  if (url.search !== '' || url.hash !== '') fail('its URL ends with the path')
  return { registry: parseRegistryName(registry), url }
}

/** The servers of one registry. */
export interface RegistryServers {
  /** In the order in which they are tried. */
  mirrors: readonly Endpoint[]
  /** The registry itself: it is asked last, and for what mirrors do not have, such as referrers. */
  original: Endpoint
}

/** The servers of each registry, mirrors first, and which of the mirrors work. */
export class Mirrors {
  readonly #log: Log
  readonly #now: () => number
  readonly #insecure: ReadonlySet<string>
  readonly #hosts: HostsDirectory
  readonly #mirrors = new Map<string, Endpoint[]>()
  /** Mirrors that failed last time. */
  readonly #health = new WeakMap<Endpoint, Health>()

  /** @throws invalid */
  constructor(
    { log, now }: { log: Log; now: () => number },
    { mirrors, insecureRegistries, hostsDirectories }: MirrorOptions,
  ) {
    this.#log = log
    this.#now = now
    this.#insecure = new Set(insecureRegistries.map(parseRegistryName))
    this.#hosts = new HostsDirectory({ log, now }, { directories: hostsDirectories })
    for (const { registry, url } of mirrors.map(parseMirror)) {
      const endpoint: Endpoint = {
        ...plainEndpoint,
        name: endpointName(url.host),
        base: new URL(mirrorPath(url.pathname), url.origin),
        isMirror: true,
        namespace: namespaceOf(registry, url.host),
      }
      this.#mirrors.set(registry, [...(this.#mirrors.get(registry) ?? []), endpoint])
    }
  }

  /** Reads the files that the options name. @throws invalid */
  async load(): Promise<void> {
    await this.#hosts.load()
  }

  /** @throws invalid for hosts that cannot be read */
  async servers(registry: string): Promise<RegistryServers> {
    const hosts = await this.#hosts.find(registry)
    return {
      mirrors: [...(this.#mirrors.get(registry) ?? []), ...(hosts?.mirrors ?? [])],
      original: hosts?.server ?? { ...this.#itself(registry), tls: hosts?.tls },
    }
  }

  /** Whether the configuration names servers of this registry, and not only of any. @throws as {@link servers} */
  async names(registry: string): Promise<boolean> {
    return this.#mirrors.has(registry) || (await this.#hosts.names(registry))
  }

  #itself(registry: string): Endpoint {
    const host = registry === 'docker.io' ? hubHost : registry
    return {
      ...plainEndpoint,
      name: registry,
      base: new URL(`${this.#insecure.has(registry) ? 'http' : 'https'}://${host}/v2/`),
      isMirror: false,
      namespace: undefined,
    }
  }

  /** The mirror to ask first; undefined where none works, or all that work are among `tried`. */
  next({ mirrors }: RegistryServers, capability: Capability, tried: ReadonlySet<Endpoint>): Endpoint | undefined {
    for (const mirror of mirrors) {
      if (tried.has(mirror) || !mirror.capabilities.has(capability)) continue
      const health = this.#health.get(mirror)
      if (health === undefined) return mirror
      if (health.pausedUntilMs > this.#now()) continue
      health.pausedUntilMs = this.#now() + probeMs
      return mirror
    }
    return undefined
  }

  succeeded(mirror: Endpoint): void {
    if (this.#health.delete(mirror)) this.#log.info('registry mirror works again', { mirror: mirror.name })
  }

  /** A mirror need not have everything, nor be able to do everything: `missing` and `unsupported` are not failures. */
  failed(mirror: Endpoint, error: unknown): void {
    if (!mirror.isMirror || !isP2pfsError(error) || isP2pfsError(error, 'missing', 'unsupported', 'closed')) return
    const health = this.#health.get(mirror)
    // Requests that fail together count once.
    if (health !== undefined && health.failures > 0 && health.pausedUntilMs > this.#now() + probeMs) return
    const failures = (health?.failures ?? 0) + 1
    const pauseMs = Math.min(firstPauseMs * 2 ** (failures - 1), maxPauseMs)
    this.#health.set(mirror, { failures, pausedUntilMs: this.#now() + pauseMs })
    this.#log.warn('registry mirror fails; it is not asked for a while', {
      mirror: mirror.name,
      seconds: pauseMs / 1000,
      error,
    })
  }
}

/**
 * The root of the API at a mirror: `/v2/` below its path, unless the path leads into the API, as that of a project
 * does.
 */
function mirrorPath(path: string): string {
  const clean = path.replace(/\/+$/, '')
  return /(?:^|\/)v2(?:\/|$)/.test(clean) ? `${clean}/` : `${clean}/v2/`
}
