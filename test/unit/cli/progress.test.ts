import assert from 'node:assert/strict'
import { test } from 'node:test'
import { viewFor } from '../../../cli/progress.ts'
import { JsonProgress } from '../../../cli/progress/json-progress.ts'
import { LineProgress } from '../../../cli/progress/line-progress.ts'
import { describeProgress, ProgressMeter } from '../../../cli/progress/meter.ts'
import { PlainProgress } from '../../../cli/progress/plain-progress.ts'

const mib = 1024 * 1024
const fetched = (done: number, total = 100): { step: 'fetch'; doneBytes: number; totalBytes: number } => ({
  step: 'fetch',
  doneBytes: done * mib,
  totalBytes: total * mib,
})

test('the rate is that of the last seconds, and says when it is over', () => {
  let nowMs = 0
  const meter = new ProgressMeter({ now: () => nowMs })
  assert.deepEqual(meter.add(fetched(0)), fetched(0), 'no rate yet')
  nowMs = 1_000
  assert.deepEqual(meter.add(fetched(10)), { ...fetched(10), bytesPerSecond: 10 * mib, secondsLeft: 9 })
  for (; nowMs <= 21_000; nowMs += 1_000) meter.add(fetched(10 + nowMs / 1000))
  const { bytesPerSecond } = meter.add(fetched(10 + nowMs / 1000))
  assert.equal(bytesPerSecond, mib, 'what was faster is forgotten')
  assert.equal(meter.add({ ...fetched(1), step: 'import' }).bytesPerSecond, undefined, 'a step has a rate of its own')
})

test('a standstill has a rate of nothing, and no end', () => {
  let nowMs = 0
  const meter = new ProgressMeter({ now: () => nowMs })
  meter.add(fetched(5))
  nowMs = 3_000
  const { bytesPerSecond, secondsLeft } = meter.add(fetched(5))
  assert.deepEqual({ bytesPerSecond, secondsLeft }, { bytesPerSecond: 0, secondsLeft: undefined })
})

test('a line says how far, how fast, from where and how long still', () => {
  const from = { local: 0, peer: 30 * mib, neighbour: 0, registry: 10 * mib }
  assert.equal(
    describeProgress({ ...fetched(40), from, bytesPerSecond: 0.5 * mib, secondsLeft: 120 }),
    'fetch 40 %, 40.0 MiB of 100.0 MiB, 512.0 KiB/s, 2 min 0 s left (peers 75 %, registry 25 %)',
  )
  assert.equal(describeProgress({ step: 'import', doneBytes: mib, totalBytes: 0 }), 'import, 1.0 MiB', 'size unknown')
  assert.equal(
    describeProgress({ ...fetched(100), bytesPerSecond: 1, secondsLeft: 0 }),
    'fetch 100 %, 100.0 MiB of 100.0 MiB, 1 B/s',
  )
})

test('a pipe gets few lines, and none for what is over at once', () => {
  let nowMs = 0
  const lines: string[] = []
  const view = new PlainProgress({ now: () => nowMs, print: (line) => lines.push(line) })
  for (; nowMs < 1_900; nowMs += 100) view.show(fetched(1))
  assert.deepEqual(lines, [])
  for (; nowMs < 62_000; nowMs += 100) view.show(fetched(2))
  assert.equal(lines.length, 6)
})

test('a terminal has one line, which is emptied at the end', () => {
  const lines: (string | undefined)[] = []
  const view = new LineProgress({ print: (line) => lines.push(line) })
  view.show(fetched(1))
  view.show(fetched(2))
  view.end()
  assert.equal(lines.length, 3)
  assert.match(lines[1]!, /^fetch 2 %/)
  assert.equal(lines[2], undefined)
})

test('a program gets all of it as objects', () => {
  const values: unknown[] = []
  const view = new JsonProgress({ meter: new ProgressMeter({ now: () => 0 }), print: (value) => values.push(value) })
  view.show({ ...fetched(1), from: { peer: mib } })
  assert.deepEqual(values, [{ progress: { ...fetched(1), from: { peer: mib } } }])
})

test('--json shows no progress by itself, and none never does', async () => {
  assert.equal(viewFor('auto', { json: true, isTerminal: true }), undefined)
  assert.equal(viewFor('none', { json: false, isTerminal: true }), undefined)
  const view = async (mode: string, isTerminal: boolean, json = false): Promise<unknown> =>
    await viewFor(mode, { json, isTerminal })?.()
  assert.ok((await view('auto', true)) instanceof LineProgress)
  assert.ok((await view('auto', false)) instanceof PlainProgress)
  assert.ok((await view('plain', true, true)) instanceof PlainProgress)
  assert.ok((await view('json', false)) instanceof JsonProgress)
})
