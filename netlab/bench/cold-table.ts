import type { ColdMode, ColdStart } from './cold-start.ts'
import { spread, type Spread } from './measurement.ts'
import { formatTable } from './table.ts'

/** The starts of one image, over links of one rate, in one way. */
export interface ColdCase {
  image: string
  compressedBytes: number
  /** Undefined is no limit. */
  rateMegabits: number | undefined
  mode: ColdMode
  starts: ColdStart[]
}

/** A case in figures: the spreads of the costs of its starts. */
export type ColdFigures = Omit<ColdCase, 'starts'> &
  Record<Measured, Spread> & {
    /** The ratio of the medians: how many times sooner the program is ready than after a plain pull. */
    ratio?: number
    /** The share of the compressed image that crossed the registry's link until the program was ready. */
    readyShare: number
  }

const measured = [
  'mountMs',
  'mountBytes',
  'mountRequests',
  'readyMs',
  'readyBytes',
  'readyRequests',
  'totalBytes',
  'againMs',
  'againColdMs',
] as const
type Measured = (typeof measured)[number]

export function coldFigures(cases: readonly ColdCase[]): ColdFigures[] {
  const figures = cases.map(({ starts, ...rest }) => {
    const spreads = Object.fromEntries(
      measured.map((key) => [key, spread(starts.map((start) => start[key]))]),
    ) as Record<Measured, Spread>
    return { ...rest, ...spreads, readyShare: spreads.readyBytes.median / rest.compressedBytes }
  })
  return figures.map((row) => {
    const plain = figures.find(
      ({ image, rateMegabits, mode }) => mode === 'plain' && image === row.image && rateMegabits === row.rateMegabits,
    )
    return plain === undefined || row.mode === 'plain'
      ? row
      : { ...row, ratio: plain.readyMs.median / row.readyMs.median }
  })
}

/** The figures as a table for people, ratios first. */
export function formatColdFigures(figures: readonly ColdFigures[]): string {
  const heading = [
    'ratio',
    'image',
    'Mbit/s',
    'way',
    'ready, s',
    'mount, s',
    'MB at mount',
    'MB at ready',
    'of image',
    'requests',
    'MB in all',
    'again, s',
    'cold, s',
  ]
  const rows = figures.map((row) => [
    row.ratio === undefined ? '' : `${row.ratio.toPrecision(3)}x`,
    row.image,
    String(row.rateMegabits ?? '-'),
    row.mode,
    seconds(row.readyMs),
    seconds(row.mountMs),
    megabytes(row.mountBytes),
    megabytes(row.readyBytes),
    `${(100 * row.readyShare).toFixed(1)} %`,
    `${row.mountRequests.median} + ${row.readyRequests.median - row.mountRequests.median}`,
    megabytes(row.totalBytes),
    seconds(row.againMs),
    seconds(row.againColdMs),
  ])
  return formatTable([heading, ...rows])
}

function seconds({ median, min, max }: Spread): string {
  const text = (ms: number): string => (ms / 1000).toFixed(ms < 10_000 ? 2 : 1)
  return `${text(median)} (${text(min)}-${text(max)})`
}

function megabytes({ median, min, max }: Spread): string {
  const text = (bytes: number): string => (bytes / 1e6).toFixed(1)
  return text(min) === text(max) ? text(median) : `${text(median)} (${text(min)}-${text(max)})`
}
