import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** The disk reserve of a disk that has room. */
const reserve = { isFull: false, release: async (): Promise<void> => undefined }

const openStore = async (directory: string): Promise<ChunkStore> =>
  await ChunkStore.open({ log: silentLog, reserve }, { directory })

test('gives back what was put, also after it is opened again', async (t) => {
  const directory = temporaryDirectory(t)
  const bytes = createRandom(1).bytes(8192)
  const digest = digestOf(bytes)
  const store = await openStore(directory)
  assert.equal(store.has(digest), false)
  assert.equal(await store.get(digest), undefined)
  await Promise.all([store.put(digest, bytes), store.put(digest, bytes)])
  assert.deepEqual(await store.get(digest), bytes)
  const again = await openStore(directory)
  assert.equal(again.has(digest), true)
  assert.equal(again.count, 1)
  assert.deepEqual(await again.get(digest), bytes)
})

test('removes what a crash left unfinished', async (t) => {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'incoming'), { recursive: true })
  writeFileSync(join(directory, 'incoming', 'torn'), 'half')
  const store = await openStore(directory)
  assert.deepEqual(readdirSync(join(directory, 'incoming')), [])
  assert.equal(store.count, 0)
})

test('discards a chunk that the disk has changed instead of handing it on', async (t) => {
  const directory = temporaryDirectory(t)
  for (const size of [4096, 256 * 1024]) {
    const bytes = createRandom(size).bytes(size)
    const digest = digestOf(bytes)
    const store = await openStore(directory)
    await store.put(digest, bytes)
    const rotten = Buffer.from(bytes)
    rotten[17]! ^= 1
    writeFileSync(chunkFile(directory, digest), rotten)
    const next = await openStore(directory)
    assert.equal(await next.get(digest), undefined)
    assert.equal(next.has(digest), false)
    await next.put(digest, bytes)
    assert.deepEqual(await next.get(digest), bytes)
  }
})

test('a chunk file that was removed by hand is missing, not an error', async (t) => {
  const directory = temporaryDirectory(t)
  const bytes = Buffer.alloc(4096, 7)
  const digest = digestOf(bytes)
  const store = await openStore(directory)
  await store.put(digest, bytes)
  await store.discard(digest)
  await store.discard(digest)
  assert.equal(await store.get(digest), undefined)
  const second = await openStore(directory)
  await second.put(digest, bytes)
  assert.equal(await store.get(digest), undefined)
})

test('a chunk that the disk has lost is written again when it comes by', async (t) => {
  const directory = temporaryDirectory(t)
  const ways: ((path: string) => void)[] = [
    (path) => rmSync(path),
    (path) => truncateSync(path),
    (path) => truncateSync(path, 100),
  ]
  for (const [i, lose] of ways.entries()) {
    const bytes = Buffer.alloc(4096, i)
    const digest = digestOf(bytes)
    const store = await openStore(directory)
    assert.equal(await store.put(digest, bytes), true)
    assert.equal(await store.put(digest, bytes), false)
    lose(chunkFile(directory, digest))
    const written = await Promise.all([store.put(digest, bytes), store.put(digest, bytes)])
    assert.equal(written.filter(Boolean).length, 1)
    assert.deepEqual(await store.get(digest), bytes)
    rmSync(chunkFile(directory, digest))
    assert.equal(await store.get(digest), undefined)
    assert.equal(store.has(digest), false)
  }
})

test('a file that changes after its bytes were found right is checked again', async (t) => {
  const directory = temporaryDirectory(t)
  const bytes = Buffer.alloc(4096, 5)
  const digest = digestOf(bytes)
  const store = await openStore(directory)
  await store.put(digest, bytes)
  assert.deepEqual(await store.get(digest), bytes)
  writeFileSync(chunkFile(directory, digest), Buffer.alloc(4096, 6))
  assert.equal(await store.get(digest), undefined)
})

test('keeps nothing while the disk is full, and goes on reading', async (t) => {
  const directory = temporaryDirectory(t)
  const [here, later] = [Buffer.alloc(4096, 1), Buffer.alloc(4096, 2)]
  const disk = { isFull: false, release: async (): Promise<void> => undefined }
  const store = await ChunkStore.open({ log: silentLog, reserve: disk }, { directory })
  await store.put(digestOf(here), here)
  disk.isFull = true
  await assert.rejects(store.put(digestOf(later), later), (error) => isP2pfsError(error, 'unavailable'))
  assert.deepEqual(await store.get(digestOf(here)), here)
  disk.isFull = false
  assert.equal(await store.put(digestOf(later), later), true)
})

test('a write that fails says so and leaves nothing', async (t) => {
  const directory = temporaryDirectory(t)
  const store = await openStore(directory)
  const bytes = Buffer.alloc(4096, 9)
  const digest = digestOf(bytes)
  // A directory where the chunk should go makes the rename fail.
  mkdirSync(join(chunkFile(directory, digest), 'in-the-way'), { recursive: true })
  await assert.rejects(store.put(digest, bytes), (error) => isP2pfsError(error, 'unavailable'))
  assert.equal(store.has(digest), false)
  assert.deepEqual(readdirSync(join(directory, 'incoming')), [])
})

test('after kill -9 at any moment, every chunk that is there is whole', async (t) => {
  const directory = temporaryDirectory(t)
  const writer = fileURLToPath(new URL('./chunk-writer.ts', import.meta.url))
  let found = 0
  for (let round = 0; round < 12; round++) {
    const child = spawn(process.execPath, [writer, directory, String(round)], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    const random = createRandom(round)
    const until = performance.now() + random.next() * 60
    while (performance.now() < until) await new Promise((resolve) => setImmediate(resolve))
    child.kill('SIGKILL')
    await once(child, 'exit')
    const store = await openStore(directory)
    for (let prefix = 0; prefix < 256; prefix++) {
      const name = prefix.toString(16).padStart(2, '0')
      for (const file of readdirSync(join(directory, name))) {
        assert.equal(digestOf(readFileSync(join(directory, name, file))), `sha256:${file}`)
        found++
      }
    }
    assert.ok(store.count > 0)
  }
  assert.ok(found > 0)
})
