import { play, type Scenario } from './scenario.ts'
import { SimulatedRegion, type RegionModel, type RegionOptions } from './simulated-region.ts'
import type { Random } from './process-random.ts'
import type { Invariants, Violation } from './invariants.ts'
import { realNow, type VirtualClock } from './virtual-clock.ts'

/** The results of one run. Times are virtual unless they say otherwise. */
export interface SimulationResult {
  hosts: number
  scenario: Scenario
  seed: number
  containers: number
  /** The time from the burst to the ready line: first, median, last (ms). */
  readyMs: { first: number; median: number; last: number }
  registryBytes: number
  /** Registry bytes of what one host alone would read. */
  copies: number
  registryRequests: number
  betweenBytes: number
  /** CPU of a host's daemon in the burst, on average (s). */
  cpuSeconds: number
  connected: { min: number; max: number }
  /** Messages that a host sends in a second: before the burst, in it (the mean, and hosts' 50th, 99th, 100th percentile), after it. */
  messagesPerHostSecond: { idle: number; burst: number; percentiles: [number, number, number]; after: number }
  /** Messages of the burst that a host sends in a second, by protocol. */
  byProtocol: Record<string, number>
  /** Bytes that a host sends in a second, without headers and chunks. */
  controlBytesPerHostSecond: { idle: number; burst: number; after: number }
  again: { chunks: number; bytes: number }
  most: Invariants['most']
  violations: number
  told: Violation[]
  events: number
  hash: string
  /** The cost of the run itself. */
  real: { seconds: number; cpuSeconds: number; memoryBytes: number }
}

export interface SimulationOptions extends Omit<RegionOptions, 'mayFail'> {
  scenario: Scenario
  seed: number
  timeoutMs: number
}

/** Runs one burst. */
export async function simulate(
  parts: { clock: VirtualClock; random: Random },
  model: RegionModel,
  options: SimulationOptions,
): Promise<SimulationResult> {
  const startedAt = realNow()
  const { clock } = parts
  const { scenario, seed, timeoutMs } = options
  const region = new SimulatedRegion(parts, model, { ...options, mayFail: scenario !== 'burst' })
  await region.form()
  const connected = region.connected
  const ownMessages = region.nodes.map(({ host }) => ({ host, before: host.messages }))
  const protocols = new Map(region.network.byProtocol)
  const { messages, controlBytes } = region.network
  const before = { messages, controlBytes, atMs: clock.now(), cpuMs: cpuMs(region), sent: sent(region) }
  play(scenario, region)
  region.start()
  await region.finish({ timeoutMs })
  const seconds = (clock.now() - before.atMs) / 1000
  const burst = (region.network.messages - before.messages) / region.nodes.length / seconds
  const perHost = ownMessages.map((own) => (own.host.messages - own.before) / seconds).sort((a, b) => a - b)
  const percentile = (share: number): number => perHost[Math.ceil(share * perHost.length) - 1]!
  const byProtocol = Object.fromEntries(
    [...region.network.byProtocol].map(([protocol, sum]) => [
      protocol,
      (sum.messages - (protocols.get(protocol)?.messages ?? 0)) / region.nodes.length / seconds,
    ]),
  )
  const burstBytes = (region.network.controlBytes - before.controlBytes) / region.nodes.length / seconds
  const used = {
    betweenBytes: sent(region) - before.sent,
    cpuSeconds: (cpuMs(region) - before.cpuMs) / region.nodes.length / 1000,
  }
  const after = await region.rest()
  const ready = region.readyMs.toSorted((a, b) => a - b)
  const { invariants, registry, image } = region
  const cpu = process.cpuUsage()
  const result: SimulationResult = {
    hosts: options.hosts,
    scenario,
    seed,
    containers: ready.length,
    readyMs: { first: ready[0] ?? NaN, median: ready[ready.length >> 1] ?? NaN, last: ready.at(-1) ?? NaN },
    registryBytes: registry.sentBytes,
    copies: registry.sentBytes / image.ownBytes,
    registryRequests: registry.requests,
    ...used,
    connected,
    messagesPerHostSecond: {
      idle: region.idlePerHostSecond.messages,
      burst,
      percentiles: [percentile(0.5), percentile(0.99), percentile(1)],
      after: after.messages,
    },
    byProtocol,
    controlBytesPerHostSecond: { idle: region.idlePerHostSecond.bytes, burst: burstBytes, after: after.bytes },
    again: invariants.again,
    most: invariants.most,
    violations: invariants.count,
    told: invariants.told,
    events: clock.count,
    hash: region.log.hash,
    real: {
      seconds: (realNow() - startedAt) / 1000,
      cpuSeconds: (cpu.user + cpu.system) / 1e6,
      memoryBytes: process.memoryUsage().rss,
    },
  }
  for (const node of region.nodes) void node.stop({ crash: true })
  return result
}

function cpuMs({ nodes }: SimulatedRegion): number {
  return nodes.reduce((sum, { host }) => sum + host.cpu.busyMs, 0)
}

function sent({ nodes }: SimulatedRegion): number {
  return nodes.reduce((sum, { host }) => sum + host.uplink.sentBytes, 0)
}
