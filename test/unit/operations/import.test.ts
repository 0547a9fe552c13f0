import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ImportOperation, type ImportParts } from '../../../node/operations/import.ts'

const { signal } = new AbortController()

/** Only what the operation asks for is there; each part notes that it was called. */
function partsThat(steps: string[], flush: () => Promise<void>): ImportParts {
  const parts = {
    requests: { variant: () => ({}) },
    importer: { importLocal: async () => (steps.push('imported'), await Promise.resolve({ record: {} })) },
    inventory: { flush: async () => (await flush(), steps.push('flushed')) },
    kept: { whileImporting: async (task: () => Promise<unknown>) => await task() },
    resolver: { add: async () => (steps.push('named'), await Promise.resolve({})) },
    seeder: { seed: async () => (steps.push('done'), await Promise.resolve({})) },
  }
  return parts as unknown as ImportParts
}

const run = async (parts: ImportParts): Promise<unknown> =>
  await new ImportOperation(parts).run(
    { name: 'tool', source: '/somewhere' },
    {
      signal,
      onProgress: () => undefined,
    },
  )

test('a local image gets its name, and is reported as imported, after its bytes are on the disk', async () => {
  const steps: string[] = []
  await run(partsThat(steps, async () => await Promise.resolve()))
  assert.deepEqual(steps, ['imported', 'flushed', 'named', 'done'])
})

test('a local image whose bytes do not get to the disk gets no name', async () => {
  const steps: string[] = []
  const refused = new Error('refused')
  await assert.rejects(run(partsThat(steps, async () => await Promise.reject(refused))), refused)
  assert.deepEqual(steps, ['imported'])
})
