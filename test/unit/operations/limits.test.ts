import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { limitNames } from '../../../node/control/api.ts'
import { LimitsOperation } from '../../../node/operations/limits.ts'
import { silentLog } from '../../../node/base/log.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const { signal } = new AbortController()

async function opened(
  t: TestContext,
  directory = temporaryDirectory(t),
): Promise<{ operation: LimitsOperation; file: string; directory: string; rates: () => (number | undefined)[] }> {
  const file = join(directory, 'limits.json')
  const bandwidths = {
    upload: new Bandwidth(),
    download: new Bandwidth(),
    registry: new Bandwidth(),
    seed: new Bandwidth(),
    neighbour: new Bandwidth(),
    guest: new Bandwidth(),
    hot: new Bandwidth(),
  }
  const operation = new LimitsOperation(
    { bandwidths, file, log: silentLog, sleep: async () => await Promise.resolve() },
    { upload: '80Mbit', download: 'none', registry: 'none', seed: 'none', neighbour: '100Mbit', guest: 'none', hot: '12MiB' },
  )
  await operation.start()
  return { operation, file, directory, rates: () => limitNames.map((name) => bandwidths[name].bytesPerSecond) }
}

test('a limit that is changed holds at once, and for the next daemon, until it is reset', async (t) => {
  const { operation, rates, directory, file } = await opened(t)
  assert.deepEqual(rates(), [10e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
  const { limits } = await operation.run({ set: { upload: 'none', seed: '5MB' } }, { signal })
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
  await next.operation.run({ reset: true, set: { registry: '1MB' } }, { signal })
  assert.deepEqual(next.rates(), [10e6, undefined, 1e6, undefined, 12.5e6, undefined, 12 * 2 ** 20])
  await next.operation.run({ reset: true }, { signal })
  assert.deepEqual(next.rates(), [10e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
  assert.equal(existsSync(file), false)
})

test('what is no rate, or no limit, changes nothing', async (t) => {
  const { operation, rates } = await opened(t)
  await assert.rejects(operation.run({ set: { upload: '1MB', seed: 'fast' } }, { signal }), /fast is no rate/)
  await assert.rejects(operation.run({ set: { disk: '1MB' } as object }, { signal }), /no limit disk/)
  assert.deepEqual(rates(), [10e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
})

test('limits that cannot be read or kept leave those of the options', async (t) => {
  const directory = temporaryDirectory(t)
  writeFileSync(join(directory, 'limits.json'), '{"upload": 7}')
  const { operation, rates } = await opened(t, directory)
  assert.deepEqual(rates(), [10e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
  await operation.run({ set: { upload: '1MB' } }, { signal })
  assert.deepEqual(rates(), [1e6, undefined, undefined, undefined, 12.5e6, undefined, 12 * 2 ** 20])
})
