import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { figuresOf, Metrics } from '../../../node/metrics/metrics.ts'
import { busyHost } from './figures-fakes.ts'
import { parsePrometheusText } from '../../support/prometheus-text.ts'

const top = fileURLToPath(new URL('../../..', import.meta.url))
const rulesFile = join(top, 'contrib/prometheus/p2pfs-rules.yml')
const rules = readFileSync(rulesFile, 'utf8')
const dashboard = readFileSync(join(top, 'contrib/grafana/p2pfs.json'), 'utf8')

interface Panel {
  type: string
  title: string
  targets?: { expr: string; legendFormat: string }[]
}
const { panels } = JSON.parse(dashboard) as { panels: Panel[] }

/** Names of samples of the daemon, with the labels that each has. */
async function samples(): Promise<Map<string, Set<string>>> {
  const labels = new Map<string, Set<string>>()
  for (const metric of parsePrometheusText(await new Metrics(figuresOf(busyHost)).text()).values()) {
    for (const sample of metric.samples.keys()) {
      const name = sample.replace(/\{.*/, '')
      labels.set(name, new Set([...sample.matchAll(/(\w+)="/g)].map(([, label]) => label!)))
    }
  }
  return labels
}

const used = [
  [
    'the alert rules',
    [...rules.matchAll(/^ {8}expr: (?:>-\n((?: {10}.*\n)+)|(.*))/gm)].map(([, many, one]) => many ?? one!),
  ],
  ['the dashboard', panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))],
] as const

for (const [what, expressions] of used) {
  test(`every metric and label that ${what} name is one that a daemon has`, async () => {
    const known = await samples()
    assert.ok(expressions.length > 15, `${expressions.length}`)
    for (const expression of expressions) {
      for (const [, name = '', selector = ''] of expression.matchAll(/\b(p2pfs_\w+)(?:\{([^}]*)\})?/g)) {
        const labels = known.get(name) ?? assert.fail(`no ${name}`)
        for (const [, label = ''] of selector.matchAll(/(\w+)=/g))
          assert.ok(label === 'instance' || labels.has(label), `${name} has no ${label}`)
      }
    }
  })
}

test('every alert says what is wrong, where, how bad it is, and what to look at', () => {
  const symptoms =
    readFileSync(join(top, 'docs/debugging.md'), 'utf8') + readFileSync(join(top, 'docs/operating.md'), 'utf8')
  const alerts = rules.split(/^ {6}- alert: /m).slice(1)
  assert.ok(alerts.length >= 12)
  for (const alert of alerts) {
    const name = alert.slice(0, alert.indexOf('\n'))
    assert.match(alert, /severity: (warning|critical)/, name)
    assert.match(alert, /summary: .*\$labels\.instance/, name)
    const [, runbook = ''] = /runbook: (?:>-)?\s*([\s\S]*)$/.exec(alert) ?? []
    const text = runbook.replaceAll(/\s+/g, ' ')
    assert.match(text, /docs\/(debugging|operating)\.md/, name)
    const rows = [...text.matchAll(/"([^"]+)"/g)].map(([, row]) => row!)
    assert.ok(rows.length > 0 || text.includes('panel'), name)
    for (const row of rows)
      assert.ok(symptoms.includes(row) || panels.some(({ title }) => title === row), `${name} names no row: ${row}`)
  }
})

test('the panels of the dashboard have ids of their own and do not lie over each other', () => {
  const taken = new Set<string>()
  const all = JSON.parse(dashboard) as {
    panels: { id: number; gridPos: { x: number; y: number; w: number; h: number } }[]
  }
  assert.equal(new Set(all.panels.map(({ id }) => id)).size, all.panels.length)
  for (const { id, gridPos } of all.panels) {
    const { x, y, w, h } = gridPos
    assert.ok(x + w <= 24)
    for (let column = x; column < x + w; column++)
      for (let line = y; line < y + h; line++) {
        assert.ok(!taken.has(`${column} ${line}`), `panel ${id} lies over another`)
        taken.add(`${column} ${line}`)
      }
  }
})

const promtool = spawnSync('promtool', ['--version']).status === 0

test(
  'promtool finds nothing wrong with the rules',
  { skip: promtool ? false : 'no promtool (Debian: prometheus)' },
  () => {
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', '--lint-fatal', rulesFile], {
      encoding: 'utf8',
    })
    assert.equal(status, 0, `${stdout}${stderr}`)
  },
)
