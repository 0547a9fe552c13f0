import { formatTable } from './table.ts'

/** Median and range of repeated runs. */
export interface Spread {
  median: number
  min: number
  max: number
  runs: number
}

export interface Measurement {
  name: string
  unit: 'ms' | 's' | 'MB/s' | '1/s' | 'MB' | 'x'
  p2pfs: Spread
  /** The counterpart, measured in the same run, if there is one. */
  counterpart?: Spread & { name: string }
  /** The ratio of the medians: above 1 p2pfs is better, whatever the unit. */
  ratio?: number
}

const smallerIsBetter = new Set<Measurement['unit']>(['ms', 's', 'MB', 'x'])

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median, min: sorted[0]!, max: sorted.at(-1)!, runs: sorted.length }
}

/** Sums up the values of p2pfs and of its counterpart, one for each run. */
export function measurement(
  name: string,
  unit: Measurement['unit'],
  p2pfs: readonly number[],
  counterpart?: { name: string; values: readonly number[] },
): Measurement {
  const ours = spread(p2pfs)
  if (counterpart === undefined) return { name, unit, p2pfs: ours }
  const theirs = spread(counterpart.values)
  const ratio = smallerIsBetter.has(unit) ? theirs.median / ours.median : ours.median / theirs.median
  return { name, unit, p2pfs: ours, counterpart: { name: counterpart.name, ...theirs }, ratio }
}

/** The measurements as a table for people, ratios first. */
export function formatMeasurements(measurements: readonly Measurement[]): string {
  const rows = measurements.map(({ name, unit, p2pfs, counterpart, ratio }) => [
    ratio === undefined ? '' : `${ratio.toPrecision(3)}x`,
    name,
    formatSpread(p2pfs, unit),
    counterpart === undefined ? '' : `${counterpart.name}: ${formatSpread(counterpart, unit)}`,
  ])
  return formatTable([['ratio', 'measure', 'p2pfs, median (range)', 'against'], ...rows])
}

function formatSpread({ median, min, max }: Spread, unit: string): string {
  return `${formatNumber(median)} ${unit} (${formatNumber(min)} to ${formatNumber(max)})`
}

function formatNumber(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}
