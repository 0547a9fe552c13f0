import { P2pfsError } from '../../protocol/errors.ts'
import { isRegistryName } from './reference.ts'

/** The host of Docker Hub's registry. */
export const hubHost = 'registry-1.docker.io'

/** A server that holds what a registry holds: the registry itself, or a mirror of it. */
export interface Endpoint {
  /** Messages use this name, and credentials are looked up by it: `docker.io`, HOST or HOST:PORT. */
  name: string
  /** The root of the API; it ends with `/`. */
  base: URL
  isMirror: boolean
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
