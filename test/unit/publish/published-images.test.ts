import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { PublishedImages } from '../../../node/publish/published-images.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { testKey } from '../../support/test-key.ts'

const digest = digestOf(Buffer.from('image'))
const record: ImageRecord = {
  reference: 'r.test/lab/image:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest: digest,
  manifest: '{}',
  rootfsDigest: digest,
  attestation: { key: (await testKey(1)).key, signature: new Uint8Array(64) },
}

/** Publications of a registry that answers with no referrers, or fails. */
function publications(): {
  published: PublishedImages
  world: { failure: Error | undefined; asked: number; nowMs: number }
} {
  const world: { failure: Error | undefined; asked: number; nowMs: number } = { failure: undefined, asked: 0, nowMs: 0 }
  const unused = (): never => {
    throw new Error('not asked for')
  }
  const published = new PublishedImages({
    catalog: { publication: async () => undefined, putPublication: async () => undefined, blobMap: unused },
    registry: {
      referrers: async () => {
        world.asked++
        if (world.failure !== undefined) throw world.failure
        return []
      },
      manifest: unused,
      openLayer: unused,
      range: unused,
    },
    trust: { acceptsPublished: () => true },
    ledger: { begin: unused },
    putBlobMap: unused,
    onProfile: unused,
    rootfsOf: unused,
    rootfs: async () => undefined,
    now: () => world.nowMs,
    log: silentLog,
  })
  return { published, world }
}

test('a registry that does not answer has not said that nothing is published; it is asked again soon', async () => {
  const { published, world } = publications()
  for (const code of ['unavailable', 'timeout', 'busy', 'denied'] as const) {
    world.failure = new P2pfsError(code, `${code} for now`)
    world.asked = 0
    await assert.rejects(published.of(record), { code: 'unavailable' })
    await assert.rejects(published.of(record), { code: 'unavailable' })
    await assert.rejects(published.windows(record, { blob: digest, table: digest }), { code: 'unavailable' })
    assert.equal(world.asked, 1)
    world.nowMs += 2_000
  }
  assert.equal(await published.layerIndexes(record, { signal: new AbortController().signal }), undefined)
  world.nowMs += 2_000
  world.failure = undefined
  assert.equal(await published.of(record), undefined)
})

test('a registry that has said that nothing is published is not asked again for a while', async () => {
  const { published, world } = publications()
  assert.equal(await published.of(record), undefined)
  assert.equal(await published.windows(record, { blob: digest, table: digest }), undefined)
  assert.equal(world.asked, 1)
  world.nowMs += 10 * 60_000
  assert.equal(await published.of(record), undefined)
  assert.equal(world.asked, 2)
})
