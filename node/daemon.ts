import { P2pfsError } from '../protocol/errors.ts'
import type { Log } from './base/log.ts'
import type { Config } from './config/options.ts'
import { ControlServer, type InheritedSocket } from './control/server.ts'
import type { Replacements } from './metrics/host-figures.ts'
import { closeToOthers, statePaths } from './state-directory.ts'
import { PowerLossCheck } from './store/power-loss-check.ts'
import { Scrubber } from './store/scrubber.ts'
import { openBandwidths } from './wiring/bandwidths.ts'
import type { DaemonContext } from './wiring/context.ts'
import { makeHoldings } from './wiring/holdings.ts'
import { makeImages } from './wiring/images.ts'
import { makeLayers } from './wiring/layers.ts'
import { openMetrics } from './wiring/metrics.ts'
import { openMounting, type OpenMountBackend } from './wiring/mounting.ts'
import { openOperations } from './wiring/operations.ts'
import { openPublications } from './wiring/publications.ts'
import { openRegion } from './wiring/region.ts'
import { openRegionWork } from './wiring/region-work.ts'
import { openRegistries } from './wiring/registries.ts'
import { makeChunkFiles, makeServedData } from './wiring/served-data.ts'
import { openSources } from './wiring/sources.ts'
import { openStorage } from './wiring/storage.ts'
import { openUpkeep } from './wiring/upkeep.ts'

export interface DaemonParts {
  log: Log
  version: string
  openMountBackend: OpenMountBackend
  /** The control socket of the supervisor, if there is one. */
  control: InheritedSocket | undefined
  replacements: Replacements
  /** Descriptor of the memory with the credentials that the daemon before has left, if there is one. */
  callersFd: number | undefined
}

/**
 * Rate at which the store is read and hashed in the background (bytes a second): less than two hundredths of a core, and
 * a fiftieth of a disk of 200 MB/s.
 */
const scrubBytesPerSecond = 4 * 1024 * 1024

/**
 * Starts the node of one host. It opens groups of parts, each with those that it builds on, so each part has all it needs
 * when it is constructed. Then it starts what is served: mounts, peers, the control socket.
 * @returns stops the daemon when it is disposed of, in reverse order; mounts stay, for the next daemon
 * @throws conflict where the state is in use; invalid for addresses that cannot be listened on
 */
export async function startDaemon(
  { log, version, openMountBackend, control: inherited, replacements, callersFd }: DaemonParts,
  config: Config,
): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack()
  await closeToOthers(config.stateDir, log)
  const stopping = new AbortController()
  const context: DaemonContext = {
    config,
    log,
    version,
    paths: statePaths(config.stateDir),
    stack,
    callersFd,
    signal: stopping.signal,
  }

  const storage = await openStorage(context)
  const bandwidths = await openBandwidths(context)
  const region = await openRegion(context, bandwidths)
  const registries = await openRegistries(context, bandwidths, region)
  const holdings = makeHoldings(storage, region)
  const publications = await openPublications(context, { storage, registries, region, holdings })
  const layers = makeLayers(context, { storage, registries, region, holdings, publications })
  const sources = openSources(context, { bandwidths, region, holdings, layers })
  const data = { storage, registries, region, holdings, publications, layers, sources }
  const images = makeImages(context, data)
  const mounting = openMounting(context, data, openMountBackend)
  const work = await openRegionWork(context, { ...data, bandwidths, images, mounting })
  const upkeep = openUpkeep(context, { storage, holdings, mounting, work })
  const operations = openOperations(context, { ...data, bandwidths, images, mounting, work, upkeep })
  const { probes, readiness } = await openMetrics(context, { storage, region, operations }, replacements)
  const control = new ControlServer(
    { operations: operations.operations, plain: probes, log },
    { socket: config.control, inherited, group: config.controlGroup },
  )

  // Mounts of the daemon before, then everything that is served. Reads are served last: a miss finds everything in place.
  const { network } = region
  const { inventory, announced, tracked } = holdings
  const { driver, mounts, nativeBuilder } = mounting
  const { jobs, hot, keptChunks } = work
  const { verifier } = images
  await tracked.trackRootfs()
  await mounts.restore()
  registries.callers.keepOnly(mounts.list().map(({ id }) => id))
  stack.use(network)
  await network.start(makeServedData({ ...data, images, work }), makeChunkFiles(storage, holdings, mounting))
  stack.defer(async () => await driver.stop())
  stack.defer(async () => await mounts.close())
  await mounts.serve()
  stack.defer(() => stopping.abort(new P2pfsError('closed', 'the daemon is stopping')))
  const powerLossCheck = stack.use(new PowerLossCheck({ inventory, log }))
  powerLossCheck.start()
  const scrubber = stack.use(new Scrubber({ inventory, log }, { bytesPerSecond: scrubBytesPerSecond }))
  scrubber.start()
  nativeBuilder?.start()
  stack.use(verifier)
  verifier.start()
  stack.use(jobs)
  jobs.start()
  stack.use(hot)
  hot.start()
  stack.defer(async () => await control.stop())
  await control.start()
  readiness.begin()
  stack.defer(() => readiness.end())
  publications.profiles.open().catch((error: unknown) => log.warn('boot profiles cannot be read', { error }))
  announced.start({ onError: (error) => log.warn('records of this host are not offered to peers', { error }) })
  upkeep.eviction.start()
  tracked
    .trackLayers()
    .then(() => keptChunks.layersTracked())
    .catch((error: unknown) => log.warn('layers of unfinished imports and windows are not offered to peers', { error }))
  log.info('daemon ready', {
    peer: network.peerId,
    region: config.region,
    addresses: network.multiaddrs(),
    chunks: inventory.count,
    mounts: mounts.list().length,
    control: config.control,
  })
  const running = stack.move()
  return {
    [Symbol.asyncDispose]: async () => {
      await running.disposeAsync()
      log.info('daemon stopped')
    },
  }
}
