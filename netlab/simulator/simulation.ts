import { play, type Scenario } from './scenario.ts'
import { SimulatedRegion, type RegionModel, type RegionOptions } from './simulated-region.ts'
import type { Random } from './process-random.ts'
import type { Violation } from './invariants.ts'
import { realNow, type VirtualClock } from './virtual-clock.ts'

/** What one run showed. Times are virtual unless they say otherwise. */
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
  /** Messages that a host sends in a second: while nothing happens, and in the burst. */
  messagesPerHostSecond: { idle: number; burst: number }
  again: { chunks: number; bytes: number }
  most: { connections: number; queuedBytes: number; readMs: number }
  violations: number
  told: Violation[]
  events: number
  hash: string
  /** What the run itself took. */
  real: { seconds: number; memoryBytes: number }
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
  const before = { messages: region.network.messages, atMs: clock.now(), cpuMs: cpuMs(region), sent: sent(region) }
  play(scenario, region)
  region.start()
  await region.finish({ timeoutMs })
  const ready = region.readyMs.toSorted((a, b) => a - b)
  const { invariants, registry, image, nodes } = region
  const result = {
    hosts: options.hosts,
    scenario,
    seed,
    containers: ready.length,
    readyMs: { first: ready[0] ?? NaN, median: ready[ready.length >> 1] ?? NaN, last: ready.at(-1) ?? NaN },
    registryBytes: registry.sentBytes,
    copies: registry.sentBytes / image.ownBytes,
    registryRequests: registry.requests,
    betweenBytes: sent(region) - before.sent,
    cpuSeconds: (cpuMs(region) - before.cpuMs) / nodes.length / 1000,
    connected,
    messagesPerHostSecond: {
      idle: region.idlePerHostSecond,
      burst: (region.network.messages - before.messages) / nodes.length / ((clock.now() - before.atMs) / 1000),
    },
    again: invariants.again,
    most: invariants.most,
    violations: invariants.count,
    told: invariants.told,
    events: clock.count,
    hash: region.log.hash,
    real: { seconds: (realNow() - startedAt) / 1000, memoryBytes: process.memoryUsage().rss },
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
