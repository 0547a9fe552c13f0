import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { formatTable } from '../bench/table.ts'
import { simulationHelp, simulationOptions, type SimulationArguments } from './command-line.ts'
import { comparison, type BurstReport } from './comparison.ts'
import { machineModels } from './model.ts'
import { writePlots } from './plots.ts'
import { scenarios } from './scenario.ts'
import type { SimulationResult } from './simulation.ts'
import { startSimulation } from './start-simulation.ts'

const { values: given } = parseArgs({ options: simulationOptions })
if (given.help) {
  process.stdout.write(simulationHelp)
  process.exit(0)
}
if (!Object.hasOwn(scenarios, given.scenario)) {
  process.stderr.write(`simulate: no scenario ${given.scenario}; there are ${Object.keys(scenarios).join(', ')}\n`)
  process.exit(2)
}
if (!Object.hasOwn(machineModels, given.machines)) {
  process.stderr.write(`simulate: no machines ${given.machines}; there are ${Object.keys(machineModels).join(', ')}\n`)
  process.exit(2)
}
const measured =
  given.compare === undefined ? undefined : (JSON.parse(await readFile(given.compare, 'utf8')) as BurstReport)
/** As in netlab, and one container on each host. */
const lab = measured && {
  hosts: measured.hosts,
  rate: measured.rate,
  'host-rate': measured['host-rate'],
  containers: '1',
  machines: 'lab',
}
const args: SimulationArguments = { ...given, ...lab }
const results: SimulationResult[] = []
for (const hosts of args.hosts.split(',')) {
  const result = await startSimulation({ ...args, hosts })
  results.push(result)
  for (const { what, atMs, host } of result.told)
    note(
      `${(atMs / 1000).toFixed(3)} s, ${host === undefined ? 'region' : `host ${host}`}: ${what} ` +
        `(--hosts ${hosts} --scenario ${args.scenario} --seed ${args.seed})`,
    )
  if (result.violations > result.told.length) note(`and ${result.violations - result.told.length} more`)
}
if (args.plots !== undefined) await writePlots(args.plots, results)
if (args.json) process.stdout.write(`${JSON.stringify({ ...args, results }, undefined, 2)}\n`)
else process.stdout.write(`${formatTable(measured === undefined ? rows(results) : comparison(measured, results))}\n`)
process.exitCode = results.some(({ violations }) => violations > 0) ? 1 : 0

function note(line: string): void {
  process.stderr.write(`simulate: ${line}\n`)
}

function rows(all: readonly SimulationResult[]): string[][] {
  const heading = [
    'hosts',
    'ready',
    'first, s',
    'median',
    'last',
    'registry, MB',
    'copies',
    'longest read, ms',
    'connections',
    'messages/host/s idle',
    'in the burst',
    'after',
    'KB/host/s idle',
    'in the burst',
    'after',
    'CPU a host, s',
    'registrations',
    'bitmaps',
    'run, s',
    'CPU, s',
    'memory, MB',
    'hash',
  ]
  const cells = (result: SimulationResult): string[] => [
    String(result.hosts),
    String(result.containers),
    ...[result.readyMs.first, result.readyMs.median, result.readyMs.last].map((ms) => (ms / 1000).toFixed(2)),
    (result.registryBytes / 1e6).toFixed(1),
    result.copies.toFixed(3),
    result.most.readMs.toFixed(0),
    `${result.connected.min}-${result.connected.max}`,
    result.messagesPerHostSecond.idle.toFixed(2),
    result.messagesPerHostSecond.burst.toFixed(0),
    result.messagesPerHostSecond.after.toFixed(2),
    ...Object.values(result.controlBytesPerHostSecond).map((bytes) => (bytes / 1000).toFixed(1)),
    result.cpuSeconds.toFixed(2),
    String(result.most.registrations),
    String(result.most.bitmaps),
    result.real.seconds.toFixed(1),
    result.real.cpuSeconds.toFixed(0),
    (result.real.memoryBytes / 1e6).toFixed(0),
    result.hash,
  ]
  return [heading, ...all.map(cells)]
}
