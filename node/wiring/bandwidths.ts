import { Bandwidth } from '../base/bandwidth.ts'
import type { LimitName } from '../control/api.ts'
import { LimitsOperation } from '../operations/limits.ts'
import type { DaemonContext } from './context.ts'

export interface BandwidthParts {
  bandwidths: Record<LimitName, Bandwidth>
  bandwidthLimits: LimitsOperation
}

/** Opens the limits on this host's bandwidth: those of the options, or those that were changed while a daemon ran. */
export async function openBandwidths({ config, log, paths, stack }: DaemonContext): Promise<BandwidthParts> {
  const bandwidths = {
    upload: new Bandwidth(),
    download: new Bandwidth(),
    registry: new Bandwidth(),
    seed: new Bandwidth(),
    neighbour: new Bandwidth(),
    guest: new Bandwidth(),
    hot: new Bandwidth(),
  }
  const bandwidthLimits = stack.use(
    new LimitsOperation(
      { bandwidths, file: paths.limits, log },
      {
        upload: config.uploadLimit,
        download: config.downloadLimit,
        registry: config.registryLimit,
        seed: config.seedLimit,
        neighbour: config.neighbourBandwidth,
        guest: config.neighbourBandwidth,
        hot: config.hotBandwidth,
      },
    ),
  )
  await bandwidthLimits.start()
  return { bandwidths, bandwidthLimits }
}
