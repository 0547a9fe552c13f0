import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { limitNames, type LimitName } from '../../../node/control/api.ts'
import { LimitsOperation, type LimitTexts } from '../../../node/operations/limits.ts'
import { silentLog, type Log, type LogFields } from '../../../node/base/log.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

async function opened(
  t: TestContext,
  directory = temporaryDirectory(t),
  options: Partial<LimitTexts> = {},
): Promise<{
  operation: LimitsOperation
  file: string
  directory: string
  rates: () => (number | undefined)[]
  bandwidths: Record<LimitName, Bandwidth>
  clock: FakeClock
  warned: LogFields[]
  set: unknown[]
}> {
  const clock = new FakeClock()
  const warned: LogFields[] = []
  const set: unknown[] = []
  const log: Log = {
    ...silentLog,
    warn: (_message, fields = {}) => void warned.push(fields),
    info: (_message, { limit } = {}) => void set.push(limit),
  }
  const limit = (): Bandwidth => new Bandwidth({ clock, nowUs: () => BigInt(Math.round(1e9 + clock.now() * 1000)) })
  const file = join(directory, 'limits.json')
  const bandwidths = {
    upload: limit(),
    download: limit(),
    registry: limit(),
    seed: limit(),
    neighbour: limit(),
    guest: limit(),
    hot: limit(),
  }
  const operation = new LimitsOperation(
    { bandwidths, file, log, clock },
    {
      upload: '80Mbit',
      download: 'none',
      registry: 'none',
      seed: 'none',
      neighbour: '100Mbit',
      guest: 'none',
      hot: '12MiB',
      ...options,
    },
  )
  await operation.start()
  return {
    operation,
    file,
    directory,
    bandwidths,
    clock,
    warned,
    set,
    rates: () => limitNames.map((name) => bandwidths[name].bytesPerSecond),
  }
}

test('the log says of limits that were changed, now or for the daemon before, and not of what the options say', async (t) => {
  const { operation, set, directory } = await opened(t)
  assert.deepEqual(set, [])
  await operation.run({ set: { seed: '5MB' } })
  assert.deepEqual(set, ['seed'])
  assert.deepEqual((await opened(t, directory)).set, ['seed'])
})

test('a limit that is changed holds at once, and for the next daemon, until it is reset', async (t) => {
  const { operation, rates, directory, file } = await opened(t)
  assert.deepEqual(rates(), [10e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
  const { limits } = await operation.run({ set: { upload: 'none', seed: '5MB' } })
  assert.deepEqual(rates(), [undefined, undefined, undefined, 5e6, 12.5e6, undefined, 12 * 2 ** 20])
  assert.deepEqual(
    limits.map(({ name, rate, isChanged }) => [name, rate, isChanged]),
    [
      ['upload', 'none', true],
      ['download', 'none', false],
      ['registry', 'none', false],
      ['seed', '5MB', true],
      ['neighbour', '100Mbit', false],
      ['guest', 'none', false],
      ['hot', '12MiB', false],
    ],
  )
  const next = await opened(t, directory)
  assert.deepEqual(next.rates(), [undefined, undefined, undefined, 5e6, 12.5e6, undefined, 12 * 2 ** 20])
  await next.operation.run({ reset: true, set: { registry: '1MB' } })
  assert.deepEqual(next.rates(), [10e6, undefined, 1e6, undefined, 12.5e6, undefined, 12 * 2 ** 20])
  await next.operation.run({ reset: true })
  assert.deepEqual(next.rates(), [10e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
  assert.equal(existsSync(file), false)
})

test('what is no rate, or no limit, changes nothing', async (t) => {
  const { operation, rates } = await opened(t)
  await assert.rejects(operation.run({ set: { upload: '1MB', seed: 'fast' } }), /fast is no rate/)
  await assert.rejects(operation.run({ set: { disk: '1MB' } as object }), /no limit disk/)
  assert.deepEqual(rates(), [10e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
})

test('limits that cannot be read or kept leave those of the options', async (t) => {
  const directory = temporaryDirectory(t)
  writeFileSync(join(directory, 'limits.json'), '{"upload": 7}')
  const { operation, rates } = await opened(t, directory)
  assert.deepEqual(rates(), [10e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
  await operation.run({ set: { upload: '1MB' } })
  assert.deepEqual(rates(), [1e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
})

test('a limit on what others get that is so low that they give up is refused, wherever it is set', async (t) => {
  const { operation, rates } = await opened(t)
  for (const name of ['upload', 'guest'] as const)
    await assert.rejects(operation.run({ set: { [name]: '1999kbit' } }), /2Mbit or more/)
  assert.equal(rates()[0], 10e6)
  await operation.run({ set: { upload: '2Mbit', download: '1kbit' } })
  assert.deepEqual(rates().slice(0, 2), [250_000, 125])
  await assert.rejects(opened(t, temporaryDirectory(t), { upload: '64kbit' }), /2Mbit or more/)
})

test('what passes and what waits is shown, over the last seconds', async (t) => {
  const { operation, bandwidths, clock } = await opened(t)
  const { upload, download } = bandwidths
  download.charge(5e6)
  upload.charge(20e6)
  const waiting = new AbortController()
  const refused = assert.rejects(upload.take(1, { signal: waiting.signal, urgency: new Urgency(false) }))
  await clock.pass(1_000)
  const of = (name: LimitName) => operation.report().find((limit) => limit.name === name)!
  assert.equal(of('download').bytesPerSecond, 5e6)
  assert.deepEqual([of('upload').waits, of('upload').waiting, of('upload').urgentWaits], [1, 1, 0])
  waiting.abort()
  await refused
  await clock.pass(10_000)
  assert.equal(of('download').bytesPerSecond, 0)
  assert.deepEqual([of('upload').waits, of('upload').waiting], [1, 0])
})

test('the log says at most once a minute that a limit delays reads that somebody waits for, and nothing of others', async (t) => {
  const { bandwidths, clock, warned } = await opened(t)
  const { upload } = bandwidths
  const take = async (isUrgent: boolean): Promise<void> =>
    await upload.take(1, { signal: new AbortController().signal, urgency: new Urgency(isUrgent) })
  upload.charge(20e6)
  void take(false)
  await clock.pass(3_000)
  assert.deepEqual(warned, [])
  for (let second = 0; second < 130; second++) {
    upload.charge(50e6)
    void take(true)
    await clock.pass(1_000)
  }
  assert.equal(warned.length, 3)
  assert.deepEqual(Object.keys(warned[0]!), ['limit', 'rate', 'pieces', 'waitedMs'])
  assert.equal(warned[0]!['limit'], 'upload')
})
