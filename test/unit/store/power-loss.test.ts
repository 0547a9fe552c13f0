import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkFileWriter } from '../../../node/base/chunk-file-writer.ts'
import { ChunkStore, type ChunkStoreOptions } from '../../../node/store/chunk-store.ts'
import { Inventory, type Announcer } from '../../../node/store/inventory.ts'
import { PowerLossCheck } from '../../../node/store/power-loss-check.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { createRandom } from '../../support/random.ts'
import { reserve } from '../../support/stores.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const { signal } = new AbortController()
const random = createRandom(11)

interface Chunk {
  bytes: Buffer
  digest: Digest
}

function chunk(): Chunk {
  const bytes = random.bytes(8192)
  return { bytes, digest: digestOf(bytes) }
}

const synced = async (): Promise<void> => undefined

/**
 * A store of a process that is never closed, as one that is killed; its files have been looked at. The test stands for
 * the disk.
 */
async function openStore(...[directory, bootId, options]: Parameters<typeof openUnexamined>): Promise<ChunkStore> {
  const store = await openUnexamined(directory, bootId, options)
  store.examine(store.doubtful())
  return store
}

async function openUnexamined(
  directory: string,
  bootId: string,
  options: Partial<ChunkStoreOptions> & { syncFilesystem?: () => Promise<void> } = {},
): Promise<ChunkStore> {
  const { syncFilesystem = synced, ...others } = options
  return await ChunkStore.open(
    { log: silentLog, reserve, syncFilesystem },
    { directory, bootId, groupMs: 3_600_000, ...others },
  )
}

async function putAll(store: ChunkStore, chunks: readonly Chunk[]): Promise<void> {
  for (const { digest, bytes } of chunks) await store.put(digest, bytes)
}

async function endDoubt(chunks: ChunkStore, region = nobody): Promise<Inventory> {
  const inventory = new Inventory({ chunks, region })
  const check = new PowerLossCheck({ inventory, log: silentLog })
  check.start()
  await check.done()
  return inventory
}

const nobody: Announcer = {
  announce: () => undefined,
  announceChunks: () => undefined,
  withdrawChunks: () => undefined,
  forget: () => undefined,
}

/** Damages that a power loss may do to a file that was not synced. */
const losses: Record<string, (path: string) => void> = {
  'is gone': (path) => rmSync(path),
  'is empty': (path) => truncateSync(path),
  'is cut short': (path) => truncateSync(path, 4096),
  'has a page of zeros': (path) => writeFileSync(path, Buffer.alloc(4096), { flag: 'r+' }),
  'is all zeros': (path) => writeFileSync(path, Buffer.alloc(8192), { flag: 'r+' }),
  'has bytes of another file': (path) => writeFileSync(path, random.bytes(8192), { flag: 'r+' }),
}

function damage(directory: string, { digest }: Chunk, loss: (path: string) => void): void {
  loss(chunkFile(directory, digest))
}

for (const [name, loss] of Object.entries(losses))
  test(`after a power loss, an unsynced chunk whose file ${name} does not count as here, and is put anew`, async (t) => {
    const directory = temporaryDirectory(t)
    const [before, after, right] = [chunk(), chunk(), chunk()]
    const killed = await openStore(directory, 'first')
    await putAll(killed, [before])
    await killed.flush({ signal })
    await putAll(killed, [after, right])
    damage(directory, after, loss)

    const store = await openStore(directory, 'second')
    assert.deepEqual(
      [before, after, right].map(({ digest }) => store.has(digest)),
      [true, false, false],
    )
    assert.deepEqual(await store.get(right.digest), right.bytes)
    assert.equal(await store.get(after.digest), undefined)
    assert.deepEqual(
      [before, after, right].map(({ digest }) => store.has(digest)),
      [true, false, true],
    )
    assert.equal(await store.put(after.digest, after.bytes), true)
    assert.deepEqual(await store.get(after.digest), after.bytes)
    assert.equal(store.count, 3)
  })

test('a chunk that is put anew over one in doubt counts at once', async (t) => {
  const directory = temporaryDirectory(t)
  const lost = chunk()
  await putAll(await openStore(directory, 'first'), [lost])
  damage(directory, lost, losses['is all zeros']!)
  const store = await openStore(directory, 'second')
  assert.equal(await store.put(lost.digest, lost.bytes), true)
  assert.equal(store.has(lost.digest), true)
  assert.deepEqual(await store.get(lost.digest), lost.bytes)
  assert.deepEqual([...store.doubtful()], [])
})

test('the region hears of a chunk in doubt when it was found to be right, and an image is whole no sooner', async (t) => {
  const directory = temporaryDirectory(t)
  const chunks = [chunk(), chunk(), chunk()]
  await putAll(await openStore(directory, 'first'), chunks)
  damage(directory, chunks[1]!, losses['has a page of zeros']!)

  const told: string[] = []
  const region: Announcer = {
    announce: (_segment, held) => told.push(`announce ${chunks.map((_, i) => Number(held.get(i))).join('')}`),
    announceChunks: (_segment, indexes) => told.push(`have ${indexes.join()}`),
    withdrawChunks: (_segment, indexes) => told.push(`withdraw ${indexes.join()}`),
    forget: () => undefined,
  }
  const store = await openStore(directory, 'second')
  const inventory = new Inventory({ chunks: store, region })
  const table = new ChunkTable([8192, 8192, 8192], Buffer.concat(chunks.map(({ digest }) => digestToBytes(digest))))
  inventory.track(table)
  const manifest = { format: 'ext4', metadata: table, layers: [], config: '{}' } as const
  assert.deepEqual([inventory.isWhole(manifest), inventory.localBytes([table])], [false, 0])
  const check = new PowerLossCheck({ inventory, log: silentLog })
  check.start()
  await check.done()
  assert.deepEqual(told.toSorted(), ['announce 000', 'have 0', 'have 2'])
  assert.deepEqual([inventory.isWhole(manifest), inventory.localBytes([table])], [false, 16_384])
  await inventory.put(chunks[1]!.digest, chunks[1]!.bytes, 'peer')
  assert.equal(inventory.isWhole(manifest), true)
})

test('after an unclean boot no chunk counts before it was looked at, and one that is read is looked at first', async (t) => {
  const directory = temporaryDirectory(t)
  const [synced, other, unsynced] = [chunk(), chunk(), chunk()]
  const killed = await openStore(directory, 'first')
  await putAll(killed, [synced, other])
  await killed.flush({ signal })
  await putAll(killed, [unsynced])
  const { mtimeMs } = statSync(chunkFile(directory, synced.digest))

  const store = await openUnexamined(directory, 'second')
  assert.deepEqual([store.count, [...store.doubtful()].length], [0, 3])
  assert.deepEqual(await store.get(synced.digest), synced.bytes)
  assert.deepEqual([store.has(synced.digest), store.has(other.digest)], [true, false])
  // It was never in doubt, so it has the epoch that it had.
  assert.equal(statSync(chunkFile(directory, synced.digest)).mtimeMs, mtimeMs)
  assert.deepEqual(store.examine(store.doubtful()), [other.digest])
  assert.deepEqual([...store.doubtful()], [unsynced.digest])
})

test('a chunk that somebody asks for counts at once if it was synced, and the region hears of it', async (t) => {
  const directory = temporaryDirectory(t)
  const [synced, unsynced] = [chunk(), chunk()]
  const killed = await openStore(directory, 'first')
  await putAll(killed, [synced])
  await killed.flush({ signal })
  await putAll(killed, [unsynced])
  const told: string[] = []
  const region: Announcer = { ...nobody, announceChunks: (_segment, indexes) => told.push(indexes.join()) }
  const inventory = new Inventory({ chunks: await openUnexamined(directory, 'second'), region })
  const digests = Buffer.concat([synced, unsynced].map(({ digest }) => digestToBytes(digest)))
  inventory.track(new ChunkTable([8192, 8192], digests))
  assert.deepEqual([inventory.has(synced.digest), inventory.has(unsynced.digest)], [true, false])
  assert.deepEqual(told, ['0'])
})

test('the region hears at once of all chunks of a segment that were synced, and later of those that are hashed', async (t) => {
  const directory = temporaryDirectory(t)
  const chunks = Array.from({ length: 9 }, chunk)
  const killed = await openStore(directory, 'first')
  await putAll(killed, chunks.slice(0, 8))
  await killed.flush({ signal })
  await putAll(killed, chunks.slice(8))

  const told: string[] = []
  const region: Announcer = {
    ...nobody,
    announceChunks: (_segment, indexes) => told.push(indexes.toSorted((a, b) => a - b).join()),
  }
  const inventory = new Inventory({ chunks: await openUnexamined(directory, 'second'), region })
  const sizes = chunks.map(({ bytes }) => bytes.length)
  inventory.track(new ChunkTable(sizes, Buffer.concat(chunks.map(({ digest }) => digestToBytes(digest)))))
  const check = new PowerLossCheck({ inventory, log: silentLog })
  check.start()
  await check.done()
  assert.deepEqual(told, ['0,1,2,3,4,5,6,7', '8'])
  assert.equal((await openUnexamined(directory, 'second')).count, 9)
})

test('a process that dies, or ends, leaves nothing in doubt', async (t) => {
  const directory = temporaryDirectory(t)
  const [first, second] = [chunk(), chunk()]
  await putAll(await openStore(directory, 'boot'), [first])
  const again = await openStore(directory, 'boot')
  assert.deepEqual([again.has(first.digest), [...again.doubtful()]], [true, []])
  await putAll(again, [second])
  await again[Symbol.asyncDispose]()
  const afterShutdown = await openStore(directory, 'next boot')
  assert.deepEqual([afterShutdown.count, [...afterShutdown.doubtful()]], [2, []])
})

test('what a killed process has not synced is synced before its successor is closed', async (t) => {
  const directory = temporaryDirectory(t)
  await putAll(await openStore(directory, 'boot'), [chunk()])
  let syncs = 0
  const successor = await openStore(directory, 'boot', { syncFilesystem: async () => void syncs++ })
  await successor[Symbol.asyncDispose]()
  assert.equal(syncs, 1)
})

test('a chunk in doubt stays so until it is checked, however often the host or the process starts', async (t) => {
  const directory = temporaryDirectory(t)
  const [lost, right] = [chunk(), chunk()]
  await putAll(await openStore(directory, '1'), [lost, right])
  damage(directory, lost, losses['is all zeros']!)
  for (const boot of ['2', '2', '3', '4']) {
    const store = await openStore(directory, boot)
    assert.deepEqual([store.count, [...store.doubtful()].length], [0, 2])
    // Work and syncs go on meanwhile, and end well.
    const other = chunk()
    await putAll(store, [other])
    await store.flush({ signal })
    await store.discard(other.digest)
    await store.flush({ signal })
    await store[Symbol.asyncDispose]()
  }
  await endDoubt(await openStore(directory, '4'))
  const store = await openStore(directory, '4')
  assert.deepEqual([store.has(right.digest), store.has(lost.digest), [...store.doubtful()]], [true, false, []])
})

test('what was found to be right is not in doubt after another power loss', async (t) => {
  const directory = temporaryDirectory(t)
  const chunks = [chunk(), chunk()]
  await putAll(await openStore(directory, '1'), chunks)
  const checked = await openStore(directory, '2')
  await endDoubt(checked)
  const store = await openStore(directory, '3')
  assert.deepEqual([store.count, [...store.doubtful()]], [2, []])
})

test('a journal that is torn, changed or gone puts more in doubt, never less', async (t) => {
  const directory = temporaryDirectory(t)
  const [safe, lost] = [chunk(), chunk()]
  const journal = join(directory, 'sync-journal')
  const killed = await openStore(directory, 'first')
  await putAll(killed, [safe])
  await killed.flush({ signal })
  await putAll(killed, [lost])
  damage(directory, lost, losses['is all zeros']!)
  const whole = readFileSync(journal)
  const others = [
    ...Array.from({ length: whole.length }, (_, length) => whole.subarray(0, length)),
    ...Array.from({ length: whole.length }, (_, at) => {
      const changed = Buffer.from(whole)
      changed[at]! ^= 1
      return changed
    }),
    Buffer.alloc(whole.length),
    undefined,
  ]
  for (const other of others) {
    if (other === undefined) rmSync(journal)
    else writeFileSync(journal, other)
    const store = await openStore(directory, 'second')
    assert.equal(store.has(lost.digest), false, other?.toString())
  }
})

test('chunks of a store without a journal are checked once', async (t) => {
  const directory = temporaryDirectory(t)
  const [lost, right] = [chunk(), chunk()]
  await openStore(directory, 'boot')
  rmSync(join(directory, 'sync-journal'))
  writeFileSync(chunkFile(directory, right.digest), right.bytes)
  writeFileSync(chunkFile(directory, lost.digest), '')
  const store = await openStore(directory, 'boot')
  assert.equal(store.count, 0)
  await endDoubt(store)
  assert.deepEqual([store.has(right.digest), store.has(lost.digest)], [true, false])
})

test('a sync that the disk refuses is not taken for one, nor are those after it', async (t) => {
  const directory = temporaryDirectory(t)
  const [early, late] = [chunk(), chunk()]
  let refused: Error | undefined = Object.assign(new Error('input/output error'), { code: 1 })
  const syncFilesystem = async (): Promise<void> => {
    if (refused !== undefined) throw refused
  }
  const store = await openStore(directory, 'first', { syncFilesystem })
  await putAll(store, [early])
  await assert.rejects(store.flush({ signal }), (error) => isP2pfsError(error, 'unavailable'))
  refused = undefined
  await putAll(store, [late])
  await assert.rejects(store.flush({ signal }), (error) => isP2pfsError(error, 'unavailable'))
  await store[Symbol.asyncDispose]()
  const next = await openStore(directory, 'second')
  assert.deepEqual([next.count, [...next.doubtful()].length], [0, 2])
})

test('a sync whose program could not be run is made up for by the next', async (t) => {
  const directory = temporaryDirectory(t)
  const early = chunk()
  let refused: Error | undefined = Object.assign(new Error('spawn sync ENOMEM'), { code: 'ENOMEM' })
  const syncFilesystem = async (): Promise<void> => {
    if (refused !== undefined) throw refused
  }
  const store = await openStore(directory, 'first', { syncFilesystem })
  await putAll(store, [early])
  await assert.rejects(store.flush({ signal }), (error) => isP2pfsError(error, 'unavailable'))
  refused = undefined
  await store.flush({ signal })
  assert.equal((await openStore(directory, 'second')).has(early.digest), true)
})

test('a group is synced when it is old, and when it is large', async (t) => {
  for (const limit of [{ groupMs: 1 }, { groupBytes: 3 * 8192 }]) {
    let [done, syncs] = [(): void => undefined, 0]
    const firstSync = new Promise<void>((resolve) => (done = resolve))
    const syncFilesystem = async (): Promise<void> => {
      syncs++
      done()
    }
    const store = await openStore(temporaryDirectory(t), 'boot', { ...limit, syncFilesystem })
    await putAll(store, [chunk(), chunk(), chunk()])
    await firstSync
    assert.ok(syncs >= 1)
  }
})

test('puts wait when the disk is behind by two groups', async (t) => {
  let release = (): void => undefined
  const held = new Promise<void>((resolve) => (release = resolve))
  const groupBytes = 2 * 8192
  const store = await openStore(temporaryDirectory(t), 'boot', { groupBytes, syncFilesystem: async () => await held })
  await putAll(store, [chunk(), chunk(), chunk(), chunk()])
  let isDone = false
  const waiting = putAll(store, [chunk()]).then(() => (isDone = true))
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual([isDone, store.count], [false, 4])
  release()
  await waiting
  assert.equal(store.count, 5)
})

test('chunk files of another thread count when they are adopted, and are synced like all others', async (t) => {
  const directory = temporaryDirectory(t)
  const [before, after] = [chunk(), chunk()]
  const store = await openStore(directory, 'first')
  const told: string[] = []
  const inventory = new Inventory({
    chunks: store,
    region: { ...nobody, announceChunks: (_segment, indexes) => told.push(indexes.join()) },
  })
  const table = new ChunkTable([8192], digestToBytes(before.digest))
  inventory.track(table)
  const writer = new ChunkFileWriter(structuredClone(inventory.writing))
  for (const { digest, bytes } of [before, after]) {
    const changedAtMs = writer.write(digest, bytes)
    assert.equal(inventory.has(digest), false)
    await inventory.adopt([{ digest, lengthBytes: bytes.length, changedAtMs }], 'peer')
    assert.deepEqual(await inventory.get(digest), bytes)
    if (digest === before.digest) await store.flush({ signal })
  }
  assert.deepEqual([told, [...inventory.sourcesOf(table)]], [['0'], [{ index: 0, source: 'peer' }]])
  const next = await openStore(directory, 'second')
  assert.deepEqual([next.has(before.digest), next.has(after.digest)], [true, false])
  assert.deepEqual(readdirSync(join(directory, 'incoming')), [])
})

test('a write that another thread has begun is waited for before its epoch counts as synced', async (t) => {
  let syncs = 0
  const store = await openStore(temporaryDirectory(t), 'boot', { syncFilesystem: async () => void syncs++ })
  const { WriteEpochs } = await import('../../../node/base/write-epochs.ts')
  const epochs = new WriteEpochs(store.writing.epochs)
  const epoch = epochs.begin()
  await putAll(store, [chunk()])
  const flushed = store.flush({ signal })
  while (epochs.current === epoch) await new Promise((resolve) => setImmediate(resolve))
  // A write of the next epoch is not waited for.
  const next = epochs.begin()
  assert.equal(next, epoch + 1)
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(syncs, 0)
  epochs.end(epoch)
  await flushed
  assert.equal(syncs, 1)
  epochs.end(next)
})

test('the room of a discarded chunk is free after the next sync, and no sooner', async (t) => {
  const directory = temporaryDirectory(t)
  const [discarded, more] = [chunk(), chunk()]
  const killed = await openStore(directory, 'boot')
  await putAll(killed, [discarded, more])
  await killed.flush({ signal })
  await killed.discard(discarded.digest)
  assert.equal(readdirSync(join(directory, 'discarded')).length, 1)
  // The process that starts after it was killed does the same.
  const store = await openStore(directory, 'boot')
  await store.discard(more.digest)
  assert.equal(readdirSync(join(directory, 'discarded')).length, 2)
  await store.flush({ signal })
  assert.deepEqual(readdirSync(join(directory, 'discarded')), [])
})
