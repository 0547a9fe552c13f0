import { P2pfsError } from '../../protocol/errors.ts'
import { isRegistryName } from './reference.ts'
import type { TlsSettings } from './tls-settings.ts'

/** The host of Docker Hub's registry. */
export const hubHost = 'registry-1.docker.io'

/** `pull`: blobs, and manifests by digest. `resolve`: manifests by tag. */
export type Capability = 'pull' | 'resolve'

/** A server that holds what a registry holds: the registry itself, or a mirror of it. */
export interface Endpoint {
  /** Messages use this name, and credentials are looked up by it: `docker.io`, HOST or HOST:PORT. */
  name: string
  /** The root of the API; it ends with `/`. */
  base: URL
  isMirror: boolean
  /**
   * The registry whose images are asked for, where the server is another one and may hold those of several: the query
   * parameter `ns`, as containerd sends it.
   */
  namespace: string | undefined
  capabilities: ReadonlySet<Capability>
  /** Sent to this server only; the names are in lower case. */
  headers: Readonly<Record<string, string>>
  tls: TlsSettings | undefined
}

/** The settings of an endpoint for which nothing is configured. */
export const plainEndpoint: Pick<Endpoint, 'capabilities' | 'headers' | 'tls'> = {
  capabilities: new Set<Capability>(['pull', 'resolve']),
  headers: {},
  tls: undefined,
}

/** The URL of a path below a repository. */
export function endpointUrl({ base, namespace }: Endpoint, repository: string, path: string): URL {
  const url = new URL(`${repository}/${path}`, base)
  if (namespace !== undefined) url.searchParams.set('ns', namespace)
  return url
}

/** The repository as the server itself calls it: a mirror may hold a registry in a project of its own. */
export function repositoryAt({ base }: Endpoint, repository: string): string {
  const root = base.pathname
  return `${root.slice(root.includes('/v2/') ? root.indexOf('/v2/') + 4 : 1)}${repository}`
}

/** The name of a registry for a server at `host`; undefined where that is the registry's own. */
export function namespaceOf(registry: string, host: string): string | undefined {
  return host === registry || endpointName(host) === registry ? undefined : registry
}

/** @throws invalid for a registry that is not HOST or HOST:PORT, with the right form */
export function parseRegistryName(text: string): string {
  if (isRegistryName(text)) return endpointName(text.replace(/^index\.docker\.io$/, 'docker.io'))
  const name = text.replace(/^[a-z]+:\/\//i, '').replace(/\/.*$/s, '')
  const hint = isRegistryName(name) ? `: ${name}` : ''
  throw new P2pfsError(
    'invalid',
    `not a registry: ${JSON.stringify(text.slice(0, 200))}; it is given as HOST or HOST:PORT${hint}`,
  )
}

/** The name of the registry at a host. */
export const endpointName = (host: string): string => (host === hubHost ? 'docker.io' : host)
