import { Counter, Gauge, Registry, type Metric } from 'prom-client'
import type { Histogram } from '../base/histogram.ts'
import type { Figure, Sample } from './figure.ts'

/** @returns the figures in the text format of Prometheus, as they are when it is called */
export function exposition(figures: readonly Figure[]): () => Promise<string> {
  const registry = new Registry()
  for (const figure of figures) register(figure, registry)
  return async () => await registry.metrics()
}

function register(figure: Figure, registry: Registry): void {
  if (figure.type === 'histogram') return registerHistogram(figure, registry)
  const { name, help, type, labels: labelNames = [], read } = figure
  const options = { name, help, labelNames, registers: [registry] }
  const collect = async (put: (sample: Sample) => void): Promise<void> => {
    const samples = await read()
    metric.reset()
    // A figure without labels is 0 after that: one that has no value has none.
    metric.remove({})
    for (const sample of samples) put(sample)
  }
  const metric: Counter | Gauge =
    type === 'gauge'
      ? new Gauge({
          ...options,
          collect: () => collect(({ labels = {}, value }) => (metric as Gauge).set(labels, value)),
        })
      : new Counter({ ...options, collect: () => collect(({ labels = {}, value }) => metric.inc(labels, value)) })
}

/** prom-client counts histograms by itself; these have been counted where it costs less. */
function registerHistogram(
  { name, help, label, read }: Extract<Figure, { type: 'histogram' }>,
  registry: Registry,
): void {
  const get = async (): Promise<object> => {
    const values = Object.entries(read()).flatMap(([key, histogram]) => samplesOf(name, { [label]: key }, histogram))
    return { name, help, type: 'histogram', values }
  }
  // The registry calls nothing else of a metric.
  registry.registerMetric({ name, get } as unknown as Metric)
}

function samplesOf(name: string, labels: Record<string, string>, histogram: Histogram): object[] {
  const { count } = histogram
  const counts = histogram.cumulative()
  const bucket = (le: number | string, value: number): object => ({
    metricName: `${name}_bucket`,
    labels: { le, ...labels },
    value,
  })
  return [
    ...histogram.bounds.map((bound, place) => bucket(bound, counts[place]!)),
    bucket('+Inf', count),
    { metricName: `${name}_sum`, labels, value: histogram.sum },
    { metricName: `${name}_count`, labels, value: count },
  ]
}
