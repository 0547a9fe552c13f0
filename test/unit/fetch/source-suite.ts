import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import type { ChunkSource, SourceOptions } from '../../../node/fetch/source.ts'
import { inStore, type Delivery } from '../../../node/model/chunk-request.ts'
import { requestOf } from '../../../node/model/rootfs-chunks.ts'
import { createRandom } from '../../support/random.ts'

/** The data behind a source, as the suite wants it. */
export interface Backing {
  table: ChunkTable
  /** The chunks of the table as the other side has them; undefined where it does not have one. */
  chunks: (Uint8Array | undefined)[]
  /** Every answer of the other side waits for this. */
  gate: () => Promise<void>
  /** The source calls it for each request that it sends. */
  onRequest: () => void
}

export interface SourceUnderTest {
  name: string
  create: (backing: Backing) => ChunkSource
  /** Whether fetches of the same chunk share one request. If not, the caller above has one fetch of a chunk at a time. */
  sharesRequests: boolean
}

const chunkBytes = 4096

function setUp({ create }: SourceUnderTest): {
  source: ChunkSource
  backing: Backing
  contents: Buffer[]
  requests: () => number
} {
  const random = createRandom(11)
  const contents = Array.from({ length: 4 }, () => Buffer.from(random.bytes(chunkBytes)))
  const table = new ChunkTable(
    contents.map(({ length }) => length),
    Buffer.concat(contents.map((bytes) => digestToBytes(digestOf(bytes)))),
  )
  let requests = 0
  const backing: Backing = {
    table,
    chunks: [...contents],
    gate: async () => undefined,
    onRequest: () => requests++,
  }
  return { source: create(backing), backing, contents, requests: () => requests }
}

function options(signal = new AbortController().signal): SourceOptions {
  return {
    signal,
    urgency: new Urgency(true),
    fetchChunk: async () => await Promise.reject(new Error('no other chunk is needed')),
  }
}

/** @throws AssertionError for a chunk that was only put into the store, though somebody waits for it */
export function bytesOf(delivery: Delivery): Buffer {
  assert.ok(delivery !== inStore)
  return Buffer.from(delivery)
}

/** Tests of the promises of every {@link ChunkSource}. */
export function testChunkSource(source: SourceUnderTest): void {
  test(`${source.name} delivers the bytes that a digest names`, async () => {
    const { source: under, backing, contents } = setUp(source)
    for (const index of [2, 0, 3])
      assert.deepEqual(bytesOf(await under.fetch(requestOf(backing.table, index), options())), contents[index])
  })

  test(`${source.name} never delivers wrong bytes`, async () => {
    const { source: under, backing, contents } = setUp(source)
    backing.chunks[1] = Buffer.from(contents[1]!.toReversed())
    await assert.rejects(under.fetch(requestOf(backing.table, 1), options()), (error) =>
      isP2pfsError(error, 'invalid', 'missing'),
    )
  })

  test(`${source.name} says that a chunk is missing where the other side does not have it`, async () => {
    const { source: under, backing } = setUp(source)
    backing.chunks.fill(undefined)
    await assert.rejects(under.fetch(requestOf(backing.table, 1), options()), { code: 'missing' })
  })

  test(`${source.name} ends with the reason of the signal, and delivers to whoever asks then`, async () => {
    const { source: under, backing, contents, requests } = setUp(source)
    const gate = Promise.withResolvers<void>()
    backing.gate = async () => await gate.promise
    const abort = new AbortController()
    const fetching = under.fetch(requestOf(backing.table, 1), options(abort.signal))
    fetching.catch(() => undefined)
    while (requests() === 0) await new Promise((resolve) => setImmediate(resolve))
    const reason = new Error('given up')
    abort.abort(reason)
    await assert.rejects(fetching, (error) => error === reason)
    gate.resolve()
    assert.deepEqual(bytesOf(await under.fetch(requestOf(backing.table, 1), options())), contents[1])
  })

  test(
    `${source.name} shares one request among those who want the same chunk`,
    { skip: !source.sharesRequests },
    async () => {
      const { source: under, backing, contents, requests } = setUp(source)
      const request = requestOf(backing.table, 1)
      const both = await Promise.all([under.fetch(request, options()), under.fetch(request, options())])
      for (const bytes of both) assert.deepEqual(bytesOf(bytes), contents[1])
      assert.equal(requests(), 1)
    },
  )
}
