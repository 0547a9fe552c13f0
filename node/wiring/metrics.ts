import { parseListenAddress } from '../base/listen-address.ts'
import { ByteHistory, byteTotals, type ByteTotals } from '../metrics/byte-history.ts'
import type { Replacements } from '../metrics/host-figures.ts'
import { MetricsListener } from '../metrics/listener.ts'
import { figuresOf, Metrics } from '../metrics/metrics.ts'
import { PageView } from '../metrics/page-view.ts'
import { ProbeAnswers } from '../metrics/probe-answers.ts'
import { Readiness } from '../metrics/readiness.ts'
import { StatusPage } from '../metrics/status-page.ts'
import { roomOf, type Room } from '../store/disk-room.ts'
import type { DaemonContext } from './context.ts'
import type { OperationParts } from './operations.ts'
import type { RegionParts } from './region.ts'
import type { StorageParts } from './storage.ts'

export interface MetricsParts {
  probes: ProbeAnswers
  readiness: Readiness
}

interface Below {
  storage: StorageParts
  region: RegionParts
  operations: OperationParts
}

/** Opens what programs and browsers see of the daemon, and the port for that, where there is one. */
export async function openMetrics(
  { config, log, version, paths, stack, signal }: DaemonContext,
  { storage: { catalog }, region: { network }, operations: { shown, status, listSeeds } }: Below,
  replacements: Replacements,
): Promise<MetricsParts> {
  const room = async (): Promise<Room> => await roomOf(paths.chunks)
  const readiness = new Readiness()
  const metrics = new Metrics(figuresOf({ ...shown, version, replacements, room }))
  const probes = new ProbeAnswers({ metrics, readiness })
  if (config.metricsListen !== '') {
    const totals = (): ByteTotals => byteTotals(shown)
    const history = stack.use(new ByteHistory({ totals }))
    history.start()
    const view = new PageView({ status, seeds: listSeeds, network, catalog, history, readiness, room })
    const answers = [probes, new StatusPage({ view }, { signal })]
    await stack.use(new MetricsListener({ answers, log }, parseListenAddress(config.metricsListen))).start()
  }
  return { probes, readiness }
}
