import type { SimulationResult } from './simulation.ts'

interface Spread {
  median: number
  min: number
  max: number
}

/** The output of `npm run burst -- --json`, as far as it is compared. */
export interface BurstReport {
  hosts: string
  rate: string
  'host-rate': string
  figures: {
    mode: string
    hosts: number
    firstMs: Spread
    slowestMs: Spread
    registryBytes: Spread
    daemonCpuSeconds: Spread
  }[]
}

/** The rows of a table: netlab's figures beside the simulator's, and their ratio. */
export function comparison({ figures }: BurstReport, results: readonly SimulationResult[]): string[][] {
  const heading = ['hosts', 'figure', 'netlab', 'range', 'simulator', 'simulator / netlab']
  const rows = results.flatMap((result) => {
    const measured = figures.find(({ mode, hosts }) => mode === 'profile' && hosts === result.hosts)
    if (measured === undefined) return []
    const row = (
      figure: string,
      { median, min, max }: Spread,
      value: number,
      unit: number,
      digits: number,
    ): string[] => [
      String(result.hosts),
      figure,
      (median / unit).toFixed(digits),
      `${(min / unit).toFixed(digits)}-${(max / unit).toFixed(digits)}`,
      (value / unit).toFixed(digits),
      (value / median).toFixed(2),
    ]
    return [
      row('first ready, s', measured.firstMs, result.readyMs.first, 1000, 2),
      row('last ready, s', measured.slowestMs, result.readyMs.last, 1000, 2),
      row('registry, MB', measured.registryBytes, result.registryBytes, 1e6, 1),
      row('CPU a host, s', measured.daemonCpuSeconds, result.cpuSeconds, 1, 2),
    ]
  })
  return [heading, ...rows]
}
