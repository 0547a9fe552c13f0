import { NeighbourObjects } from '../neighbours/neighbour-objects.ts'
import { neighbourOptions } from '../neighbours/neighbour-options.ts'
import { NeighbourRegion } from '../neighbours/neighbour-region.ts'
import { PeerNetwork } from '../peers/network.ts'
import type { BandwidthParts } from './bandwidths.ts'
import type { DaemonContext } from './context.ts'

export interface RegionParts {
  /** Asks peers from now on. It serves them when it is started, which is also when it is to be closed. */
  network: PeerNetwork
  neighbours: NeighbourRegion[]
  /** Objects of the region, and where it has none, of its neighbours. */
  near: NeighbourObjects
}

/**
 * Opens the ways to other hosts: those of the region, and of the regions that this host is a guest of.
 * @throws invalid for addresses that cannot be listened on, or a key that is none
 */
export async function openRegion(
  { config, log, paths, stack }: DaemonContext,
  { bandwidths }: BandwidthParts,
): Promise<RegionParts> {
  const network = await PeerNetwork.open(
    { log, upload: bandwidths.upload, download: bandwidths.download, guestBandwidth: bandwidths.guest },
    {
      region: config.region,
      name: config.name,
      listen: config.listen,
      bootstrap: config.bootstrap,
      ...(config.fullMesh > 0 && { fullMesh: config.fullMesh }),
      identityFile: paths.identity,
      regionKeyFile: config.regionKeyFile || undefined,
      memberFile: config.regionMembers || undefined,
      guestKeyFile: config.guestKeyFile || undefined,
      bulk:
        config.bulk === 'off'
          ? undefined
          : { mode: config.bulk === 'plain' ? 'plain' : 'tls', listen: config.bulkListen || undefined },
    },
  )
  const neighbours: NeighbourRegion[] = []
  for (const { region, bootstrap, keyFile } of neighbourOptions(config)) {
    const own = { region: config.region, name: config.name }
    const options = { region, bootstrap, keyFile, identityFile: paths.identity, own }
    neighbours.push(stack.use(await NeighbourRegion.open({ log, bandwidth: bandwidths.neighbour }, options)))
  }
  const near = new NeighbourObjects({ neighbours, region: network.objects, bandwidth: bandwidths.neighbour })
  return { network, neighbours, near }
}
