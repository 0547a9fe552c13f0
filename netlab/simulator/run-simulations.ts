import { readFile } from 'node:fs/promises'
import { formatTable } from '../bench/table.ts'
import type { SimulationArguments } from './command-line.ts'
import { comparison, type BurstReport } from './comparison.ts'
import { pythonBoot, rackNetwork, rackRegistry } from './model.ts'
import { writePlots } from './plots.ts'
import type { Random } from './process-random.ts'
import { scenarios, type Scenario } from './scenario.ts'
import { pythonImage } from './simulated-image.ts'
import type { RegionModel } from './simulated-region.ts'
import { simulate, type SimulationResult } from './simulation.ts'
import type { VirtualClock } from './virtual-clock.ts'

/** The hosts of netlab: a bridge on one machine, whose cores all share. */
const lab = { latencyMs: 0.05, sharedCores: 2, containers: 1 } as const

/** Runs what the command line asks for, and prints it. @returns the exit code */
export async function runSimulations(
  parts: { clock: VirtualClock; random: Random },
  args: SimulationArguments,
): Promise<number> {
  if (!Object.hasOwn(scenarios, args.scenario)) {
    process.stderr.write(`simulate: no scenario ${args.scenario}: ${Object.keys(scenarios).join(', ')}\n`)
    return 2
  }
  const measured =
    args.compare === undefined ? undefined : (JSON.parse(await readFile(args.compare, 'utf8')) as BurstReport)
  const numbers = (measured === undefined ? args.hosts : measured.hosts).split(',').map(Number)
  const results: SimulationResult[] = []
  for (const hosts of numbers) {
    const result = await simulate(parts, modelOf(args, measured), {
      hosts,
      containersPerHost: measured === undefined ? Number(args.containers) : lab.containers,
      scenario: args.scenario as Scenario,
      seed: Number(args.seed),
      settleMs: Number(args.settle) * 1000,
      timeoutMs: Number(args.timeout) * 1000,
      bounds: { readMs: Number(args['max-read']) * 1000, copies: Number(args['max-copies']) },
      traced: new Set(args.trace.map(Number)),
      print: (line) => void process.stderr.write(`${line}\n`),
    })
    results.push(result)
    for (const { what, atMs, host } of result.told)
      process.stderr.write(
        `simulate: ${(atMs / 1000).toFixed(3)} s, ${host === undefined ? 'region' : `host ${host}`}: ${what} ` +
          `(${hosts} hosts, --scenario ${args.scenario} --seed ${args.seed})\n`,
      )
    if (result.violations > result.told.length)
      process.stderr.write(`simulate: and ${result.violations - result.told.length} more\n`)
  }
  if (args.plots !== undefined) await writePlots(args.plots, results)
  if (args.json) process.stdout.write(`${JSON.stringify({ ...args, results }, undefined, 2)}\n`)
  else if (measured !== undefined) process.stdout.write(`${formatTable(comparison(measured, results))}\n`)
  else process.stdout.write(`${formatTable(table(results))}\n`)
  return results.some(({ violations }) => violations > 0) ? 1 : 0
}

function modelOf(args: SimulationArguments, measured: BurstReport | undefined): RegionModel {
  const rates = measured ?? args
  const cores = args['shared-cores'] === undefined ? undefined : Number(args['shared-cores'])
  return {
    network: {
      ...rackNetwork,
      hostBitsPerSecond: Number(rates['host-rate']) * 1e6,
      latencyMs: measured === undefined ? Number(args.latency) : lab.latencyMs,
      sharedCores: measured === undefined ? cores : lab.sharedCores,
    },
    registry: { ...rackRegistry, bitsPerSecond: Number(rates.rate) * 1e6 },
    image: pythonImage,
    boot: pythonBoot,
  }
}

function table(results: readonly SimulationResult[]): string[][] {
  const heading = [
    'hosts',
    'containers',
    'ready: first',
    'median',
    'last, s',
    'registry, MB',
    'copies',
    'longest read, ms',
    'connections',
    'messages/host/s idle',
    'burst',
    'CPU a host, s',
    'run, s',
    'memory, MB',
    'hash',
  ]
  return [
    heading,
    ...results.map((result) => [
      String(result.hosts),
      String(result.containers),
      ...[result.readyMs.first, result.readyMs.median, result.readyMs.last].map((ms) => (ms / 1000).toFixed(2)),
      (result.registryBytes / 1e6).toFixed(1),
      result.copies.toFixed(3),
      result.most.readMs.toFixed(0),
      `${result.connected.min}-${result.connected.max}`,
      result.messagesPerHostSecond.idle.toFixed(2),
      result.messagesPerHostSecond.burst.toFixed(0),
      result.cpuSeconds.toFixed(2),
      result.real.seconds.toFixed(1),
      (result.real.memoryBytes / 1e6).toFixed(0),
      result.hash,
    ]),
  ]
}
