import assert from 'node:assert/strict'
import { rmSync, statSync, writeFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import { ChunkFileWriter } from '../../../node/base/chunk-file-writer.ts'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { Inventory, type Announcer } from '../../../node/store/inventory.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const chunk = (n: number): { bytes: Buffer; digest: Digest } => {
  const bytes = Buffer.alloc(4096, n)
  return { bytes, digest: digestOf(bytes) }
}

const tableOf = (...chunks: { bytes: Buffer; digest: Digest }[]): ChunkTable =>
  new ChunkTable(
    chunks.map(({ bytes }) => bytes.length),
    Buffer.concat(chunks.map(({ digest }) => digestToBytes(digest))),
  )

/** An inventory on a real chunk store; `told` is what the region has heard. */
async function open(t: TestContext): Promise<{ inventory: Inventory; told: string[]; directory: string }> {
  const told: string[] = []
  const region: Announcer = {
    announce: (segment, held) => {
      const indexes = Array.from({ length: held.count }, (_, index) => index).filter((index) => held.get(index))
      told.push(`announce ${segment} ${indexes.join()}`)
    },
    announceChunks: (segment, indexes) => told.push(`have ${segment} ${indexes.join()}`),
    withdrawChunks: (segment, indexes) => told.push(`withdraw ${segment} ${indexes.join()}`),
    forget: (segment) => told.push(`forget ${segment}`),
  }
  const directory = temporaryDirectory(t)
  const chunks = await ChunkStore.open(
    { log: silentLog, reserve: { isFull: false, release: async () => undefined } },
    { directory },
  )
  return { inventory: new Inventory({ chunks, region }), told, directory }
}

test('the region hears of a segment with what is here, and then of every chunk that comes', async (t) => {
  const { inventory, told } = await open(t)
  const [a, b] = [chunk(1), chunk(2)]
  const table = tableOf(a, b)
  await inventory.put(a.digest, a.bytes, 'peer')
  inventory.track(table)
  inventory.track(table)
  await inventory.put(b.digest, b.bytes, 'registry')
  await inventory.put(b.digest, b.bytes, 'registry')
  assert.deepEqual(told, [`announce ${table.id} 0`, `have ${table.id} 1`])
  assert.equal(inventory.isWhole({ format: 'ext4', metadata: table, layers: [], config: '{}' }), true)
  assert.equal(inventory.localBytes([table]), 8192)
  assert.deepEqual(
    [...inventory.sourcesOf(table)].map(({ source }) => source),
    ['peer', 'registry'],
  )
})

test('chunks whose files another thread has written are told to the region in one message a segment', async (t) => {
  const { inventory, told, directory } = await open(t)
  const chunks = [chunk(1), chunk(2), chunk(3), chunk(4)]
  const [a, b] = [tableOf(chunks[0]!, chunks[1]!), tableOf(chunks[1]!, chunks[2]!, chunks[3]!)]
  inventory.track(a)
  inventory.track(b)
  const arrived: string[] = []
  const changedAtMs: (number | undefined)[] = []
  inventory.onArrival((table, index, source, changed) => {
    arrived.push(`${table} ${index} ${source}`)
    changedAtMs.push(changed)
  })
  told.length = 0
  const writer = new ChunkFileWriter(inventory.writing)
  const digests = chunks.map(({ digest }) => digest)
  const files = chunks.map(({ digest, bytes }) => ({
    digest,
    lengthBytes: bytes.length,
    changedAtMs: writer.write(digest, bytes),
  }))
  await inventory.adopt(files, 'peer')
  await inventory.adopt(files, 'peer')
  assert.deepEqual(told, [`have ${a.id} 0,1`, `have ${b.id} 0,1,2`])
  assert.equal(arrived.length, 5)
  assert.ok(arrived.every((line) => line.endsWith(' peer')))
  assert.deepEqual(
    new Set(changedAtMs),
    new Set(digests.map((digest) => statSync(chunkFile(directory, digest)).ctimeMs)),
  )
  assert.deepEqual(
    [...inventory.sourcesOf(a)],
    [0, 1].map((index) => ({ index, source: 'peer' })),
  )
  assert.deepEqual(await inventory.get(digests[3]!), chunks[3]!.bytes)
})

test('a chunk whose file has changed since another thread wrote it is not served', async (t) => {
  const { inventory, directory } = await open(t)
  const { digest, bytes } = chunk(1)
  const changedAtMs = new ChunkFileWriter(inventory.writing).write(digest, bytes)
  writeFileSync(chunkFile(directory, digest), Buffer.alloc(4096))
  await inventory.adopt([{ digest, lengthBytes: 4096, changedAtMs }], 'peer')
  assert.equal(await inventory.get(digest), undefined)
  assert.equal(inventory.has(digest), false)
})

test('a chunk that the disk has lost or changed is not served, and is withdrawn from the region', async (t) => {
  const { inventory, told, directory } = await open(t)
  const [lost, changed, short] = [chunk(1), chunk(2), chunk(3)]
  const table = tableOf(lost, changed, short)
  inventory.track(table)
  for (const { digest, bytes } of [lost, changed, short]) {
    await inventory.put(digest, bytes, 'registry')
    assert.deepEqual(await inventory.get(digest), bytes)
  }
  told.length = 0
  rmSync(chunkFile(directory, lost.digest))
  writeFileSync(chunkFile(directory, changed.digest), Buffer.alloc(4096, 9))
  writeFileSync(chunkFile(directory, short.digest), '')
  for (const { digest } of [lost, changed, short]) {
    assert.equal(await inventory.get(digest), undefined)
    assert.equal(inventory.has(digest), false)
  }
  assert.deepEqual(told, [`withdraw ${table.id} 0`, `withdraw ${table.id} 1`, `withdraw ${table.id} 2`])
  await inventory.put(changed.digest, changed.bytes, 'peer')
  assert.deepEqual(await inventory.get(changed.digest), changed.bytes)
})

test('scrubbing finds what nobody has read', async (t) => {
  const { inventory, told, directory } = await open(t)
  const [good, bad] = [chunk(1), chunk(2)]
  const table = tableOf(good, bad)
  inventory.track(table)
  for (const { digest, bytes } of [good, bad]) await inventory.put(digest, bytes, 'registry')
  told.length = 0
  writeFileSync(chunkFile(directory, bad.digest), Buffer.alloc(4096, 9))
  assert.deepEqual([await inventory.scrub(good.digest), await inventory.scrub(bad.digest)], [4096, 0])
  assert.deepEqual([inventory.has(good.digest), inventory.has(bad.digest)], [true, false])
  assert.deepEqual(told, [`withdraw ${table.id} 1`])
})

test('a provisional segment is withdrawn when it is untracked; one that a rootfs has stays', async (t) => {
  const { inventory, told } = await open(t)
  const [a, b] = [chunk(1), chunk(2)]
  const [provisional, kept] = [tableOf(a), tableOf(b)]
  for (const { digest, bytes } of [a, b]) await inventory.put(digest, bytes, 'registry')
  inventory.track(provisional, { provisional: true })
  inventory.track(kept, { provisional: true })
  inventory.track(kept)
  told.length = 0
  inventory.untrack(provisional.id)
  inventory.untrack(kept.id)
  assert.deepEqual(
    told.filter((line) => !line.endsWith(' ')),
    [`withdraw ${provisional.id} 0`, `forget ${provisional.id}`],
  )
  assert.deepEqual([inventory.isReferenced(a.digest), inventory.isReferenced(b.digest)], [false, true])
})

test('listeners hear of arrivals until they are disposed of', async (t) => {
  const { inventory } = await open(t)
  const [a, b] = [chunk(1), chunk(2)]
  const table = tableOf(a, b)
  inventory.track(table)
  const heard: string[] = []
  const listening = inventory.onArrival((segment, index, source) => heard.push(`${segment} ${index} ${source}`))
  await inventory.put(a.digest, a.bytes, 'peer')
  listening[Symbol.dispose]()
  await inventory.put(b.digest, b.bytes, 'peer')
  assert.deepEqual(heard, [`${table.id} 0 peer`])
})
