import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { figuresOf, Metrics } from '../../../node/metrics/metrics.ts'
import { busyHost } from './figures-fakes.ts'
import { parsePrometheusText } from '../../support/prometheus-text.ts'

const figures = figuresOf(busyHost)
const metrics = new Metrics(figures)

test('every figure has a value in the text that Prometheus reads', async () => {
  const parsed = parsePrometheusText(await metrics.text())
  assert.deepEqual(
    [...parsed.keys()],
    figures.map(({ name }) => name),
  )
  for (const { name, type } of figures) {
    assert.equal(parsed.get(name)?.type, type)
    assert.ok(parsed.get(name)!.samples.size > 0, name)
  }
  const value = (sample: string): number | undefined => parsed.get(/^[a-z_0-9]+/.exec(sample)![0])?.samples.get(sample)
  const expected: Record<string, number> = {
    'p2pfs_read_bytes_total{source="neighbour"}': 3,
    p2pfs_read_errors_total: 5,
    p2pfs_reads_waiting: 6,
    p2pfs_reads_slow: 7,
    p2pfs_read_longest_wait_seconds: 8,
    'p2pfs_whole_layer_reads_total{reason="no-map"}': 9,
    'p2pfs_fetched_bytes_total{source="peer"}': 10,
    'p2pfs_fetched_bytes_total{source="registry"}': 15,
    'p2pfs_sent_bytes_total{to="member"}': 16,
    'p2pfs_peers{state="connected"}': 2,
    'p2pfs_peers{state="not_connected"}': 7,
    'p2pfs_registry_requests_total{for="host",code="timeout"}': 21,
    'p2pfs_registry_requests_total{for="members",code="404"}': 23,
    p2pfs_registries_silent: 22,
    'p2pfs_mounts{as="drive",reads="fuse"}': 2,
    'p2pfs_mounts{as="tree",reads="native"}': 1,
    p2pfs_mounts_contradicted: 1,
    'p2pfs_mount_failures_total{code="missing"}': 24,
    'p2pfs_imports_total{outcome="failed"}': 26,
    'p2pfs_daemon_replacements_total{cause="unexpected"}': 30,
    p2pfs_store_bytes: 5,
    p2pfs_store_limit_bytes: 6,
    p2pfs_evicted_bytes_total: 7,
    p2pfs_store_disk_free_bytes: 32,
    p2pfs_event_loop_delay_seconds: 34,
    'p2pfs_limit_read_wait_seconds_total{limit="upload"}': 1.5,
  }
  for (const [sample, number] of Object.entries(expected)) assert.equal(value(sample), number, sample)
})

test('buckets of a histogram count all that is smaller, and the last one counts all', async () => {
  const { samples } = parsePrometheusText(await metrics.text()).get('p2pfs_read_wait_seconds')!
  const of = (rest: string): number | undefined => samples.get(`p2pfs_read_wait_seconds_${rest}`)
  assert.equal(of('bucket{le="0.1",source="peer"}'), 1)
  assert.equal(of('bucket{le="1",source="peer"}'), 2)
  assert.equal(of('bucket{le="+Inf",source="peer"}'), 3)
  assert.equal(of('count{source="peer"}'), 3)
  assert.equal(of('sum{source="peer"}'), 5.55)
})

test('counters are read anew each time, not added up', async () => {
  await metrics.text()
  const { samples } = parsePrometheusText(await metrics.text()).get('p2pfs_read_bytes_total')!
  assert.equal(samples.get('p2pfs_read_bytes_total{source="peer"}'), 2)
})

test('a figure begins with p2pfs_, says its unit, and has only labels whose values are bounded', () => {
  const bounded = new Set([
    'source',
    'reason',
    'to',
    'state',
    'for',
    'code',
    'limit',
    'as',
    'reads',
    'origin',
    'outcome',
    'cause',
  ])
  for (const figure of figures) {
    const { name, type, help, bound } = figure
    assert.match(name, /^p2pfs_[a-z0-9_]+$/)
    if (type === 'counter') assert.match(name, /_total$/)
    else assert.doesNotMatch(name, /_total$/)
    assert.match(help, /^[A-Z].*\.$/)
    assert.doesNotMatch(name, /_(ms|mib|kb|minutes)\b/)
    const labels = figure.type === 'histogram' ? [figure.label] : (figure.labels ?? [])
    if (bound === undefined) for (const label of labels) assert.ok(bounded.has(label), `${name} has the label ${label}`)
  }
})

const promtool = spawnSync('promtool', ['--version']).status === 0

test('promtool finds nothing wrong', { skip: promtool ? false : 'no promtool (Debian: prometheus)' }, async () => {
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
    input: await metrics.text(),
    encoding: 'utf8',
  })
  assert.equal(`${stdout}${stderr}`.trim(), '')
  assert.equal(status, 0)
})
