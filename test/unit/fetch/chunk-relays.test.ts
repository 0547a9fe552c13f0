import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { ChunkRelays } from '../../../node/fetch/chunk-relays.ts'
import type { Fetcher } from '../../../node/fetch/fetcher.ts'

const bytes = Buffer.alloc(4096)
const digest = digestOf(bytes)
const request = { digest, lengthBytes: bytes.length, table: digestOf(Buffer.from('table')), index: 7 }
const { signal } = new AbortController()

function relays(depth: number | undefined) {
  const fetches: Parameters<Fetcher['fetch']>[1][] = []
  const made = new ChunkRelays({
    inventory: { requestOf: (wanted) => (wanted === digest ? request : undefined) },
    fetcher: {
      fetch: async (_, options) => {
        fetches.push(options)
        return await Promise.resolve({ bytes, source: 'registry' as const })
      },
    },
    spans: { depthOf: () => depth },
  })
  const relay = async (askerDepth: number, wanted = digest): Promise<Uint8Array | undefined> =>
    await made.chunk(wanted, { signal, urgency: new Urgency(false), depth: askerDepth })
  return { relay, fetches }
}

test('a host that a steward has sent to the registry reads for others; one that is not placed yet asks where to', async () => {
  for (const depth of [undefined, 0]) {
    const { relay, fetches } = relays(depth)
    assert.equal(await relay(1), bytes)
    assert.deepEqual(
      fetches.map(({ asReader }) => asReader),
      [depth === 0],
    )
  }
})

test('a host that was sent to a member itself relays only to those below it', async () => {
  const { relay, fetches } = relays(2)
  for (const depth of [0, 1, 2]) await assert.rejects(relay(depth), { code: 'busy' })
  assert.equal(fetches.length, 0)
  assert.equal(await relay(3), bytes)
  assert.deepEqual(
    fetches.map(({ asReader }) => asReader),
    [false],
  )
})

test('a host relays nothing that is in no segment of its own', async () => {
  const { relay, fetches } = relays(undefined)
  assert.deepEqual([await relay(1, digestOf(Buffer.from('other'))), fetches.length], [undefined, 0])
})
