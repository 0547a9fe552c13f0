import assert from 'node:assert/strict'
import { readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { ChunkFileWriter } from '../../../node/base/chunk-file-writer.ts'
import { isStoreFull } from '../../../node/base/disk-full.ts'
import { parseKeepFree } from '../../../node/base/keep-free.ts'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { StoreRoom } from '../../../node/store/store-room.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const mebibyte = 2 ** 20
const { signal } = new AbortController()

interface Opened {
  store: ChunkStore
  room: StoreRoom
  directory: string
  disk: { freeBytes: number; sizeBytes: number }
}

async function open(t: TestContext, limitBytes: number, directory = temporaryDirectory(t)): Promise<Opened> {
  const disk = { freeBytes: 1e12, sizeBytes: 1e12 }
  const room = new StoreRoom({ disk: async () => await Promise.resolve(disk), log: silentLog }, { limitBytes })
  const reserve = {
    isFull: false,
    release: async (): Promise<void> => await Promise.reject(new Error('the disk is not full')),
  }
  const parts = { log: silentLog, reserve, room, syncFilesystem: async () => undefined }
  const store = await ChunkStore.open(parts, { directory })
  t.after(async () => await store[Symbol.asyncDispose]())
  return { store, room, directory, disk }
}

/** The room of the files below the directory, those without a name included (bytes). */
const takenBytes = (directory: string): number =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'sync-journal')
    .reduce((sum, { parentPath, name }) => sum + Math.ceil(statSync(join(parentPath, name)).size / 4096) * 4096, 0)

const random = createRandom(3)
const chunk = (lengthBytes: number): { digest: Digest; bytes: Buffer; lengthBytes: number } => {
  const bytes = Buffer.from(
    random
      .bytes(64)
      .toString('hex')
      .repeat(Math.ceil(lengthBytes / 128)),
  ).subarray(0, lengthBytes)
  return { digest: digestOf(bytes), bytes, lengthBytes }
}

test('whatever comes, goes, is damaged or lost, the room that is used is what the files take, and not above the limit', async (t) => {
  const limitBytes = 3 * mebibyte
  const { store, room, directory } = await open(t, limitBytes)
  await store.countFiles({ signal })
  const known = Array.from({ length: 60 }, () => chunk(1 + random.below(200_000)))
  const threads = new ChunkFileWriter(store.writing)
  let refused = 0
  for (let step = 0; step < 600; step++) {
    const { digest, bytes } = known[random.below(known.length)]!
    const what = random.below(10)
    if (what < 4) {
      // Nobody evicts: nothing is waited for.
      room.noteStuck()
      await store.put(digest, bytes).catch((error: unknown) => {
        assert.ok(isP2pfsError(error, 'unavailable') && isStoreFull(error))
        refused++
      })
    } else if (what < 6) {
      try {
        store.adopt({ digest, lengthBytes: bytes.length, changedAtMs: threads.write(digest, bytes) })
      } catch (error) {
        assert.ok(isStoreFull(error), String(error))
        refused++
      }
    } else if (what < 8) await store.discard(digest)
    else if (what === 8) rmSync(chunkFile(directory, digest), { force: true })
    else await store.get(digest)
    assert.ok(room.usedBytes <= limitBytes, `${room.usedBytes} at step ${step}`)
    if (step % 10 === 0) assert.ok(takenBytes(directory) <= limitBytes, `${takenBytes(directory)} at step ${step}`)
  }
  assert.ok(refused > 10, `${refused} were refused`)
  for (const { digest } of known) await store.get(digest)
  await store.flush({ signal })
  assert.equal(room.usedBytes, takenBytes(directory))
})

test('a thread that is killed, or writes what is here, takes no room for good', async (t) => {
  const { store, room, directory } = await open(t, 3 * mebibyte)
  await store.countFiles({ signal })
  const thread = store.openThreadWriting()
  const files = new ChunkFileWriter(thread.writing)
  const [told, untold, unwritten, taken] = [chunk(100_000), chunk(100_000), chunk(100_000), chunk(100_000)]
  for (const { digest, lengthBytes } of [told, told, untold, unwritten, taken])
    assert.equal(await thread.grant(digest, lengthBytes), true)
  for (const { digest, bytes } of [told, untold, taken]) files.write(digest, bytes)
  thread.adopt({ ...told, changedAtMs: 0 })
  await store.put(taken.digest, taken.bytes)
  thread.adopt({ ...taken, changedAtMs: 0 })
  await thread[Symbol.asyncDispose]()
  await store.flush({ signal })
  assert.equal(store.count, 2)
  assert.equal(room.usedBytes, takenBytes(directory))
})

test('after a start nothing is kept before what is here is counted, and then what is beyond the limit is known', async (t) => {
  const directory = temporaryDirectory(t)
  const before = await open(t, 3 * mebibyte, directory)
  await before.store.countFiles({ signal })
  for (let i = 0; i < 10; i++) {
    const { digest, bytes } = chunk(200_000)
    await before.store.put(digest, bytes)
  }
  const { store, room } = await open(t, mebibyte, directory)
  const more = chunk(4096)
  const putting = store.put(more.digest, more.bytes)
  assert.equal(room.excessBytes(0), 0)
  await store.countFiles({ signal })
  assert.equal(room.usedBytes, 10 * 49 * 4096)
  assert.ok(room.excessBytes(0) > room.usedBytes - mebibyte)
  room.noteStuck()
  await assert.rejects(putting, isStoreFull)
})

test('who waits for room gets it in the order of asking, as soon as it is there', async (t) => {
  const { store, room } = await open(t, mebibyte)
  await store.countFiles({ signal })
  const [a, b, c] = [chunk(600_000), chunk(600_000), chunk(100_000)]
  let pressed = 0
  room.onPressure(() => pressed++)
  await store.put(a.digest, a.bytes)
  const kept: string[] = []
  const putting = [b, c].map(async ({ digest, bytes }, i) => (await store.put(digest, bytes), kept.push('bc'[i]!)))
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual([kept, pressed], [[], 2])
  await store.discard(a.digest)
  await store.flush({ signal })
  await Promise.all(putting)
  assert.deepEqual(kept.toSorted(), ['b', 'c'])
})

test('no more than a few chunks wait for room: others are refused at once', async (t) => {
  const { store, room } = await open(t, mebibyte)
  await store.countFiles({ signal })
  const big = chunk(mebibyte)
  await store.put(big.digest, big.bytes)
  const outcomes = Array.from({ length: 80 }, () => room.take(8192)).map(
    async (taking) =>
      await taking.then(
        () => 'taken',
        () => 'refused',
      ),
  )
  const first = await Promise.race(outcomes)
  assert.equal(first, 'refused')
  room.noteStuck()
  assert.ok((await Promise.all(outcomes)).every((outcome) => outcome === 'refused'))
})

test('as much of the disk as is to stay free stays free, whoever fills it', async () => {
  const disk = { freeBytes: 500 * mebibyte, sizeBytes: 1_000 * mebibyte }
  const keepFree = parseKeepFree('20%')
  const room = new StoreRoom({ disk: async () => await Promise.resolve(disk), log: silentLog }, { keepFree })
  room.counter.count((100 * mebibyte) / 4096)
  await room.look()
  assert.equal(room.limitBytes, 400 * mebibyte)
  // This host writes: the limit is what it was.
  room.counter.count((50 * mebibyte) / 4096)
  disk.freeBytes -= 50 * mebibyte
  await room.look()
  assert.deepEqual([room.limitBytes, room.excessBytes(0)], [400 * mebibyte, 0])
  // Others write.
  disk.freeBytes = 150 * mebibyte
  await room.look()
  assert.equal(room.limitBytes, 100 * mebibyte)
  assert.ok(room.excessBytes(0) >= 50 * mebibyte && room.isFull)
  assert.ok(room.excessBytes(60 * mebibyte) <= 2 * room.slackBytes)
})

test('what stays free is a size, a share, or by default a tenth and 10 GiB at most', () => {
  const gibibyte = 2 ** 30
  assert.equal(parseKeepFree('20GiB')(gibibyte), 20 * gibibyte)
  assert.equal(parseKeepFree('2.5%')(1_000), 25)
  assert.equal(parseKeepFree('0')(1_000), 0)
  assert.deepEqual(
    [50, 1_000].map((size) => parseKeepFree('auto')(size * gibibyte) / gibibyte),
    [5, 10],
  )
  for (const text of ['', '-1', '100%', 'much'])
    assert.throws(
      () => parseKeepFree(text),
      (error) => isP2pfsError(error, 'invalid'),
    )
})
