import { SharedBlobs } from '../peers/object/shared-blobs.ts'
import { DockerCredentials } from '../registry/credentials.ts'
import { CallerMemory } from '../registry/caller-memory.ts'
import { HeldCallers } from '../registry/held-callers.ts'
import { createImageSource } from '../registry/image-source.ts'
import { RegistryTraffic } from '../registry/registry-traffic.ts'
import type { BandwidthParts } from './bandwidths.ts'
import type { DaemonContext } from './context.ts'
import type { RegionParts } from './region.ts'

type ImageSource = ReturnType<typeof createImageSource>

export interface RegistryParts {
  callers: HeldCallers
  /** Has small things read from registries once for the region. */
  sharing: SharedBlobs
  /** Reads from registries for this host. */
  registry: ImageSource
  /** Reads from registries what peers ask for, with connections, tokens and pauses of its own: it holds up no read of this host. */
  registryForPeers: ImageSource
  /** Counts the traffic of the two. */
  registries: Record<'host' | 'members', RegistryTraffic>
}

/** Opens the two clients of registries: one for this host, one for its peers. */
export async function openRegistries(
  { config, log, version, stack, callersFd }: DaemonContext,
  { bandwidths }: BandwidthParts,
  { network: { spans, membership, objects } }: RegionParts,
): Promise<RegistryParts> {
  const registryOptions = {
    credentials: new DockerCredentials({ log }),
    insecureRegistries: config.insecureRegistry,
    mirrors: config.registryMirror,
    hostsDirectories: config.registryHostsDir,
    certificates: { authorityFiles: config.registryCa },
    bandwidths: [bandwidths.registry, bandwidths.download],
    limits: { connections: config.registryConnections, requestsPerSecond: config.registryRequestsPerSecond },
    userAgent: `p2pfs/${version}`,
    log,
  }
  const registries = { host: new RegistryTraffic(), members: new RegistryTraffic() }
  // Peers get nothing with the credentials of callers.
  const callers = new HeldCallers({
    memory: callersFd === undefined ? undefined : new CallerMemory({ log }, callersFd),
  })
  const sharing = new SharedBlobs({ spans, membership, region: objects, log })
  const registry = stack.use(createImageSource({ ...registryOptions, callers, sharing, traffic: registries.host }))
  await registry.start()
  const registryForPeers = stack.use(
    createImageSource({
      ...registryOptions,
      traffic: registries.members,
      limits: {
        connections: Math.ceil(config.registryConnections / 2),
        requestsPerSecond: Math.ceil(config.registryRequestsPerSecond / 2),
      },
      forOthers: { named: config.peerRegistry },
      // Its messages quote what a peer asks for, which stays below info.
      log: { ...log, warn: log.debug, info: log.debug },
    }),
  )
  await registryForPeers.start()
  return { callers, sharing, registry, registryForPeers, registries }
}
