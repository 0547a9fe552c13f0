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

/** The name of the registry at a host. */
export const endpointName = (host: string): string => (host === hubHost ? 'docker.io' : host)
