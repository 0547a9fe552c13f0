import assert from 'node:assert/strict'
import { readdirSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { Worker } from 'node:worker_threads'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { ChunkFileWriter, type WrittenChunk } from '../../../node/base/chunk-file-writer.ts'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** Long enough for any sync; one that waits for a dead thread takes a minute (ms). */
const flushMs = 30_000

async function open(t: TestContext, reserve = { isFull: false, release: async () => undefined }): Promise<ChunkStore> {
  const store = await ChunkStore.open(
    { log: silentLog, reserve, syncFilesystem: async () => undefined },
    { directory: temporaryDirectory(t) },
  )
  t.after(async () => await store[Symbol.asyncDispose]())
  return store
}

const chunk = (n: number): { bytes: Buffer; digest: Digest; lengthBytes: number } => {
  const bytes = Buffer.alloc(200_000, n)
  return { bytes, digest: digestOf(bytes), lengthBytes: bytes.length }
}

const filesIn = ({ directory }: ChunkStore): string[] =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter(
    (name) => /[0-9a-f]{64}$/.test(name) || name.startsWith('incoming/'),
  )

/** Writes the chunks again and again, and tells of each once. */
const writer = `
  const { parentPort, workerData: { writing, chunks, module } } = require('node:worker_threads')
  import(module).then(({ ChunkFileWriter }) => {
    const files = new ChunkFileWriter(writing)
    for (let i = 0; ; i++) {
      const { digest, bytes } = chunks[i % chunks.length]
      files.write(digest, bytes)
      if (i < chunks.length) parentPort.postMessage(digest)
    }
  })
`

/** A chunk whose file is read before its first use. */
function written(digest: Digest, lengthBytes: number): WrittenChunk {
  return { digest, lengthBytes, changedAtMs: 0 }
}

test('a thread that is killed at any instruction leaves nothing that it has not told of, and holds up no sync', async (t) => {
  const store = await open(t)
  const module = new URL('../../../node/base/chunk-file-writer.ts', import.meta.url).href
  const random = createRandom(12)
  for (let kill = 0; kill < 12; kill++) {
    const chunks = Array.from({ length: 20 }, (_, i) => chunk(1 + ((kill * 20 + i) % 255)))
    const before = new Set(store.digests())
    const thread = store.openThreadWriting()
    for (const { digest, lengthBytes } of chunks) await thread.grant(digest, lengthBytes)
    const worker = new Worker(writer, { eval: true, workerData: { writing: thread.writing, chunks, module } })
    const until = random.below(20)
    await new Promise<void>((resolve) => {
      let told = 0
      worker.on('message', (digest: Digest) => {
        // It is told of no more when it is dead.
        if (told <= until) thread.adopt(written(digest, chunks[0]!.lengthBytes))
        if (told++ === until) resolve()
      })
    })
    await worker.terminate()
    await thread[Symbol.asyncDispose]()
    assert.equal(store.count, new Set([...before, ...chunks.slice(0, until + 1).map(({ digest }) => digest)]).size)
    assert.equal(filesIn(store).filter((name) => name.startsWith('incoming/')).length, 0)
    await store.flush({ signal: AbortSignal.timeout(flushMs) })
    assert.equal(filesIn(store).filter((name) => !name.startsWith('discarded/')).length, store.count)
  }
})

test('what a dead thread has left unsaid stays where another one, or the store itself, has it too', async (t) => {
  const store = await open(t)
  const [a, b, c] = [chunk(1), chunk(2), chunk(3)]
  const [dead, alive] = [store.openThreadWriting(), store.openThreadWriting()]
  for (const { digest, lengthBytes } of [a, b, c]) assert.equal(await dead.grant(digest, lengthBytes), true)
  assert.equal(await alive.grant(a.digest, a.lengthBytes), true)
  const files = new ChunkFileWriter(dead.writing)
  for (const { digest, bytes } of [a, b, c]) files.write(digest, bytes)
  await store.put(b.digest, b.bytes)
  await dead[Symbol.asyncDispose]()
  assert.equal(filesIn(store).filter((name) => !name.startsWith('discarded/')).length, 2)
  assert.equal(alive.adopt(written(a.digest, a.lengthBytes)), true)
  for (const { digest, bytes } of [a, b]) assert.deepEqual(await store.get(digest), bytes)
  assert.equal(store.has(c.digest), false)
  await alive[Symbol.asyncDispose]()
  assert.deepEqual([...store.digests()].toSorted(), [a.digest, b.digest].toSorted())
})

test('a chunk that is here is not granted, unless the disk has lost it', async (t) => {
  const store = await open(t)
  const { digest, bytes, lengthBytes } = chunk(1)
  await store.put(digest, bytes)
  await using thread = store.openThreadWriting()
  assert.equal(await thread.grant(digest, lengthBytes), false)
  await using again = store.openThreadWriting()
  unlinkSync(join(store.directory, filesIn(store)[0]!))
  assert.equal(await again.grant(digest, lengthBytes), true)
  new ChunkFileWriter(again.writing).write(digest, bytes)
  assert.equal(again.adopt(written(digest, lengthBytes)), true)
  assert.deepEqual(await store.get(digest), bytes)
})

test('nothing is granted while the disk is full, and a writer that finds it full says so to the reserve', async (t) => {
  let released = 0
  const reserve = { isFull: false, release: async () => void released++ }
  const store = await open(t, reserve)
  await using thread = store.openThreadWriting()
  const full = Object.assign(new Error('no room'), { code: 'ENOSPC' })
  assert.deepEqual(await thread.failed(full).then(({ cause }) => cause), full)
  assert.equal(released, 1)
  reserve.isFull = true
  const { digest, lengthBytes } = chunk(1)
  await assert.rejects(thread.grant(digest, lengthBytes), { code: 'unavailable' })
})

test('what threads have under way when the disk is full is not written into the reserve, and is when there is room', async (t) => {
  const reserve = { isFull: false, release: async () => void (reserve.isFull = true) }
  const store = await open(t, reserve)
  await using first = store.openThreadWriting()
  await using second = store.openThreadWriting()
  const { digest, bytes, lengthBytes } = chunk(1)
  assert.equal(await second.grant(digest, lengthBytes), true)
  await first.failed(Object.assign(new Error('no room'), { code: 'ENOSPC' }))
  for (const { writing } of [second, { writing: store.writing }])
    assert.throws(() => new ChunkFileWriter(writing).write(digest, bytes), { code: 'ENOSPC' })
  assert.deepEqual(filesIn(store), [])
  reserve.isFull = false
  assert.equal(await second.grant(digest, lengthBytes), true)
  new ChunkFileWriter(second.writing).write(digest, bytes)
  assert.equal(second.adopt(written(digest, lengthBytes)), true)
})
