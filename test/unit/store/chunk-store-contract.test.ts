import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import type { ChunkStore } from '../../../node/store/chunk-store.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { MemoryChunkStore } from '../../support/memory-chunk-store.ts'
import { createRandom } from '../../support/random.ts'
import { openChunkStore } from '../../support/stores.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** A chunk store, as its users rely on it. */
interface TestedStore {
  store: Pick<ChunkStore, 'count' | 'has' | 'put' | 'get' | 'discard'>
  /** Flips a bit of a chunk behind the store's back. */
  spoil: (digest: Digest) => void
}

const kinds: Record<string, (t: TestContext, chunks: readonly Uint8Array[]) => Promise<TestedStore>> = {
  'on disk': async (t, chunks) => {
    const directory = temporaryDirectory(t)
    const store = await openChunkStore(directory)
    for (const bytes of chunks) await store.put(digestOf(bytes), bytes)
    const spoil = (digest: Digest): void => {
      const spoilt = readFileSync(chunkFile(directory, digest))
      spoilt[0]! ^= 1
      writeFileSync(chunkFile(directory, digest), spoilt)
    }
    return { store, spoil }
  },
  'in memory': async (_t, chunks) => {
    const store = new MemoryChunkStore()
    for (const bytes of chunks) await store.put(digestOf(bytes), bytes)
    return { store, spoil: (digest) => store.spoil(digest) }
  },
}

const random = createRandom(5)
const [bytes, more] = [random.bytes(4096), random.bytes(200_000)]
const [digest, moreDigest] = [digestOf(bytes), digestOf(more)]

for (const [kind, open] of Object.entries(kinds)) {
  test(`a chunk store ${kind} gives back what was put, and nothing else`, async (t) => {
    const { store } = await open(t, [])
    assert.equal(store.has(digest), false)
    assert.equal(await store.get(digest), undefined)
    assert.equal(await store.put(digest, bytes), true)
    assert.equal(store.has(digest), true)
    assert.deepEqual(await store.get(digest), bytes)
    assert.equal(await store.get(moreDigest), undefined)
    assert.equal(store.count, 1)
  })

  test(`a chunk store ${kind} keeps a chunk once, however often it is put`, async (t) => {
    const { store } = await open(t, [more])
    const puts = await Promise.all([bytes, bytes, bytes].map(async (piece) => await store.put(digest, piece)))
    assert.deepEqual(puts.filter(Boolean), [true])
    assert.equal(await store.put(digest, bytes), false)
    assert.equal(await store.put(moreDigest, more), false)
    assert.equal(store.count, 2)
  })

  test(`a chunk store ${kind} forgets a discarded chunk, and takes it again`, async (t) => {
    const { store } = await open(t, [bytes])
    await store.discard(digest)
    await store.discard(digest)
    assert.equal(store.has(digest), false)
    assert.equal(await store.get(digest), undefined)
    assert.equal(await store.put(digest, bytes), true)
    assert.deepEqual(await store.get(digest), bytes)
  })

  test(`a chunk store ${kind} discards a spoilt chunk when it is read, whenever it was spoilt`, async (t) => {
    const { store, spoil } = await open(t, [bytes, more])
    for (const damaged of [digest, moreDigest]) {
      await store.get(damaged)
      spoil(damaged)
      assert.equal(await store.get(damaged), undefined)
      assert.equal(store.has(damaged), false)
    }
    assert.equal(await store.put(digest, bytes), true)
    assert.deepEqual(await store.get(digest), bytes)
  })
}
