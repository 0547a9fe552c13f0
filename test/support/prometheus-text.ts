import assert from 'node:assert/strict'

/** A metric as its text has it. */
export interface ParsedMetric {
  type: string
  help: string
  /** By name and labels, such as `a_total{source="peer"}`. */
  samples: Map<string, number>
}

const label = String.raw`[a-z0-9_]+="(?:[^"\\]|\\["\\n])*"`
const line = new RegExp(String.raw`^([a-z0-9_]+)(\{${label}(?:,${label})*\})? (-?[0-9.e+-]+)$`)

/** Parses the text format of Prometheus, strictly. */
export function parsePrometheusText(text: string): Map<string, ParsedMetric> {
  const metrics = new Map<string, ParsedMetric>()
  let name = ''
  for (const row of text.split('\n')) {
    const [, keyword, of = '', rest = ''] = /^# (HELP|TYPE) ([a-z_0-9]+) (.*)$/.exec(row) ?? []
    if (keyword === 'HELP') {
      assert.ok(!metrics.has(of), `${of} comes twice`)
      name = of
      metrics.set(name, { type: '', help: rest, samples: new Map() })
    } else if (keyword === 'TYPE') {
      assert.equal(of, name)
      metrics.get(name)!.type = rest
    } else if (row !== '') {
      const [, of = '', labels = '', value] = line.exec(row) ?? assert.fail(`not a sample: ${row}`)
      const metric = metrics.get(name)!
      const names = metric.type === 'histogram' ? ['_bucket', '_sum', '_count'].map((end) => name + end) : [name]
      assert.ok(names.includes(of), `${of} stands below ${name}`)
      assert.ok(!metric.samples.has(of + labels), `${of}${labels} comes twice`)
      metric.samples.set(of + labels, Number(value))
    }
  }
  return metrics
}
