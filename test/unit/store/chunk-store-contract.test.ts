import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { MemoryChunkStore } from '../../support/memory-chunk-store.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** What users of a chunk store rely on, whichever it is. */
interface TestedStore {
  store: Pick<ChunkStore, 'count' | 'has' | 'put' | 'get' | 'getVerified' | 'discard'>
  /** Flips a bit of a chunk behind the store's back, before the store has looked at it. */
  spoil: (digest: Digest) => Promise<void>
  lost: Digest[]
}

const kinds: Record<string, (t: TestContext, chunks: readonly Uint8Array[]) => Promise<TestedStore>> = {
  'on disk': async (t, chunks) => {
    const directory = temporaryDirectory(t)
    const lost: Digest[] = []
    const open = async (): Promise<ChunkStore> => {
      const store = new ChunkStore({ log: silentLog, onLost: (digest) => lost.push(digest) }, { directory })
      await store.open()
      return store
    }
    // A store trusts what it has written itself, so the chunks come from an earlier one.
    const earlier = await open()
    for (const bytes of chunks) await earlier.put(digestOf(bytes), bytes)
    const spoil = async (digest: Digest): Promise<void> => {
      const spoilt = readFileSync(chunkFile(directory, digest))
      spoilt[0]! ^= 1
      writeFileSync(chunkFile(directory, digest), spoilt)
    }
    return { store: await open(), spoil, lost }
  },
  'in memory': async (_t, chunks) => {
    const lost: Digest[] = []
    const store = new MemoryChunkStore({ onLost: (digest) => lost.push(digest) })
    for (const bytes of chunks) await store.put(digestOf(bytes), bytes)
    return { store, spoil: async (digest) => store.spoil(digest), lost }
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
    assert.equal(await store.getVerified(digest), undefined)
    assert.equal(await store.put(digest, bytes), true)
    assert.equal(store.has(digest), true)
    assert.deepEqual(await store.get(digest), bytes)
    assert.deepEqual(await store.getVerified(digest), bytes)
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
    const { store, lost } = await open(t, [bytes])
    await store.discard(digest)
    await store.discard(digest)
    assert.equal(store.has(digest), false)
    assert.equal(await store.get(digest), undefined)
    assert.equal(await store.put(digest, bytes), true)
    assert.deepEqual(await store.getVerified(digest), bytes)
    assert.deepEqual(lost, [], 'a discarded chunk is not lost')
  })

  test(`a chunk store ${kind} discards a spoilt chunk when it verifies it, and reports the loss`, async (t) => {
    const { store, spoil, lost } = await open(t, [bytes, more])
    for (const damaged of [digest, moreDigest]) {
      await spoil(damaged)
      assert.equal(await store.getVerified(damaged), undefined)
      assert.equal(store.has(damaged), false)
    }
    assert.deepEqual(lost, [digest, moreDigest])
    assert.equal(await store.put(digest, bytes), true)
    assert.deepEqual(await store.getVerified(digest), bytes)
  })
}
