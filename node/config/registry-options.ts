import { parseRegistryName } from '../registry/endpoint.ts'
import { parseMirror } from '../registry/mirrors.ts'
import { defaultLimits } from '../registry/request-gate.ts'
import { count, list } from './option.ts'

/** Registries: how they are reached, and how much they are asked. */
export const registryOptions = {
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
} as const
