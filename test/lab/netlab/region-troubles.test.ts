import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { debianImages } from '../../../netlab/images/images.ts'
import { TroubledRegion, troubleNames } from '../../../netlab/scenarios/region-troubles.ts'

/** Reads are to take three seconds at most; the machine of the test may be busy (ms). */
const longestReadMs = 10_000

let region: TroubledRegion

before(async () => {
  const { gzip } = await debianImages()
  region = await TroubledRegion.create(gzip, { hosts: 6, seconds: 10, seed: 3, registryBitsPerSecond: 100e6 })
})

after(async () => {
  await region[Symbol.asyncDispose]()
})

for (const trouble of troubleNames) {
  test(`no read fails or hangs in a region in trouble: ${trouble}`, async (context) => {
    const { readMs, failures } = await region.run(trouble)
    assert.deepEqual(failures, [])
    assert.ok(readMs.length > 50, `${readMs.length} reads`)
    const longestMs = readMs.at(-1)!
    context.diagnostic(`${readMs.length} reads, the longest took ${longestMs.toFixed(0)} ms`)
    assert.ok(longestMs < longestReadMs, `a read took ${longestMs.toFixed(0)} ms`)
  })
}
