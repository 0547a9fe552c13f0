import type { ColdMode, ColdStart } from './cold-start.ts'
import { spread, type Spread } from './measurement.ts'
import { formatTable } from './table.ts'

/** Starts of one image over links of one rate, all in one way. */
export interface ColdCase {
  image: string
  compressedBytes: number
  /** Undefined: no limit. */
  rateMegabits: number | undefined
  mode: ColdMode
  starts: ColdStart[]
}

/** A case in figures: spreads of what its starts took. */
export type ColdFigures = Omit<ColdCase, 'starts'> &
  Record<Measured, Spread> & {
    /** How many times sooner the program is ready than after a plain pull, of the medians. */
    ratio?: number
    /** Of the compressed image, what crossed the registry's link until the program was ready. */
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
  return figures.map((one) => {
    const plain = figures.find(
      ({ image, rateMegabits, mode }) => mode === 'plain' && image === one.image && rateMegabits === one.rateMegabits,
    )
    return plain === undefined || one.mode === 'plain'
      ? one
      : { ...one, ratio: plain.readyMs.median / one.readyMs.median }
  })
}

/** A table for people: ratios first. */
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
  const rows = figures.map((one) => [
    one.ratio === undefined ? '' : `${one.ratio.toPrecision(3)}x`,
    one.image,
    String(one.rateMegabits ?? '-'),
    one.mode,
    seconds(one.readyMs),
    seconds(one.mountMs),
    megabytes(one.mountBytes),
    megabytes(one.readyBytes),
    `${(100 * one.readyShare).toFixed(1)} %`,
    `${one.mountRequests.median} + ${one.readyRequests.median - one.mountRequests.median}`,
    megabytes(one.totalBytes),
    seconds(one.againMs),
    seconds(one.againColdMs),
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
