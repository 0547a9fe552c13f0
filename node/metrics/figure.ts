import type { Histogram } from '../base/histogram.ts'

/** A value, and the labels that tell it from others of the same figure. */
export interface Sample {
  labels?: Readonly<Record<string, string>>
  value: number
}

/**
 * A figure that Prometheus can read. It is asked for when somebody looks, so it costs nothing in between. Counters
 * begin at zero when the daemon starts. The values of labels are of a set that is fixed in the program, unless `bound`
 * says what else bounds them.
 */
export type Figure = { name: string; help: string; bound?: string } & (
  | {
      type: 'counter' | 'gauge'
      labels?: readonly string[]
      read: () => readonly Sample[] | Promise<readonly Sample[]>
    }
  | { type: 'histogram'; label: string; read: () => Readonly<Record<string, Histogram>> }
)

type Count = Extract<Figure, { type: 'counter' | 'gauge' }>

/** A figure of one value. */
export function single(type: Count['type'], name: string, help: string, read: () => number | Promise<number>): Figure {
  return { type, name, help, read: async () => [{ value: await read() }] }
}

/** A figure with a value for each value of one label. */
export function labelled(
  type: Count['type'],
  name: string,
  help: string,
  label: string,
  read: () => Readonly<Record<string, number>> | Promise<Readonly<Record<string, number>>>,
): Figure {
  return {
    type,
    name,
    help,
    labels: [label],
    read: async () => Object.entries(await read()).map(([key, value]) => ({ labels: { [label]: key }, value })),
  }
}
