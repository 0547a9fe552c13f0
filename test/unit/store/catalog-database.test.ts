import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { diskFull } from '../../../node/base/disk-full.ts'
import { silentLog } from '../../../node/base/log.ts'
import { CatalogDatabase, type Database } from '../../../node/store/catalog-database.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** A disk whose room the test sets, and a clock. */
class Host {
  readonly disk: string
  readonly memory: string
  freeBytes = 2 ** 40
  nowMs = 0
  released = 0

  constructor(t: TestContext) {
    const directory = temporaryDirectory(t)
    this.disk = join(directory, 'disk')
    this.memory = join(directory, 'memory')
  }

  async open(): Promise<CatalogDatabase> {
    return await CatalogDatabase.open(
      {
        reserve: { release: async () => void this.released++ },
        log: silentLog,
        room: async () => ({ freeBytes: this.freeBytes }),
        now: () => this.nowMs,
      },
      this,
    )
  }

  /** A write that the disk refuses where it is full. */
  async put(database: CatalogDatabase, key: string, value: Uint8Array = Buffer.from(key)): Promise<void> {
    await database.write(key, async (level) => {
      if (level.location === this.disk && this.freeBytes === 0) throw diskFull()
      await level.put(key, value)
    })
  }
}

const read = async (database: CatalogDatabase): Promise<string[]> =>
  await database.read(async (level) => await level.keys().all())
const compact = async (level: Database): Promise<void> =>
  await (level as Database & { compactRange: (start: string, end: string) => Promise<void> }).compactRange('', '~')

test('a write that a full disk refuses goes to memory, and what was written there outlives the process', async (t) => {
  const host = new Host(t)
  const first = await host.open()
  await host.put(first, 'before')
  host.freeBytes = 0
  await Promise.all(['one', 'two', 'three'].map(async (key) => await host.put(first, key)))
  assert.equal(host.released > 0, true)
  const all = ['before', 'one', 'three', 'two']
  assert.deepEqual(await read(first), all)
  await first.close()
  const second = await host.open()
  assert.deepEqual(await read(second), all)
  await host.put(second, 'four')
  await second.close()
  // A reboot ends what is in memory.
  rmSync(host.memory, { recursive: true })
  const third = await host.open()
  assert.deepEqual(await read(third), ['before'])
  await third.close()
})

test('with room again all is on the disk, after a while or at the end', async (t) => {
  for (const how of ['write', 'close'] as const) {
    const host = new Host(t)
    const database = await host.open()
    host.freeBytes = 0
    await host.put(database, 'full')
    host.freeBytes = 2 ** 40
    if (how === 'write') {
      await host.put(database, 'at once')
      assert.ok(existsSync(host.memory))
      host.nowMs += 60_000
      await host.put(database, 'later')
      assert.ok(!existsSync(host.memory))
    }
    await database.close()
    assert.ok(!existsSync(host.memory))
    const next = await host.open()
    assert.deepEqual(await read(next), how === 'write' ? ['at once', 'full', 'later'] : ['full'])
    await next.close()
  }
})

test('tables of the disk are read from memory, and what is compacted there is whole on the disk later', async (t) => {
  const host = new Host(t)
  const random = createRandom(1)
  const values = new Map<string, Buffer>()
  const fill = async (database: CatalogDatabase, from: number, count: number): Promise<void> => {
    for (let i = from; i < from + count; i++) {
      const value = random.bytes(64 * 1024)
      values.set(`key-${i}`, value)
      await host.put(database, `key-${i}`, value)
    }
  }
  const database = await host.open()
  await fill(database, 0, 150)
  await database.read(compact)
  assert.ok(readdirSync(host.disk).some((name) => name.endsWith('.ldb')))
  host.freeBytes = 0
  await fill(database, 100, 150)
  await database.read(compact)
  const check = async (): Promise<void> => {
    for (const [key, value] of values)
      assert.deepEqual(Buffer.from(await database.read(async (level) => (await level.get(key)) ?? [])), value, key)
  }
  await check()
  host.freeBytes = 2 ** 40
  host.nowMs += 60_000
  await host.put(database, 'end')
  values.set('end', Buffer.from('end'))
  assert.ok(!existsSync(host.memory))
  await check()
  await database.close()
})

test('a copy to the disk that does not end leaves memory to go on with; after a reboot the disk has what it had', async (t) => {
  const host = new Host(t)
  const database = await host.open()
  await host.put(database, 'before')
  host.freeBytes = 0
  await host.put(database, 'full')
  host.freeBytes = 2 ** 40
  host.nowMs += 60_000
  const obstacle = join(host.disk, 'CURRENT.partial')
  mkdirSync(obstacle)
  await host.put(database, 'later')
  await database.close()
  rmdirSync(obstacle)
  const all = ['before', 'full', 'later']
  const next = await host.open()
  assert.deepEqual(await read(next), all)
  host.freeBytes = 0
  await next.close()
  rmSync(host.memory, { recursive: true })
  const rebooted = await host.open()
  // A record that has come as far as the log of the disk may be there.
  assert.ok((await read(rebooted)).includes('before'))
  await rebooted.close()
})

test('what is in memory is not taken where the disk has been written since', async (t) => {
  const host = new Host(t)
  const database = await host.open()
  host.freeBytes = 0
  await host.put(database, 'full')
  await database.close()
  const hidden = { disk: host.disk, memory: `${host.memory}-elsewhere` }
  host.freeBytes = 2 ** 40
  const parts = { reserve: { release: async () => undefined }, log: silentLog }
  const other = await CatalogDatabase.open(parts, hidden)
  await other.write('other', async (level) => await level.put('other', Buffer.from('x')))
  await other.close()
  const next = await host.open()
  assert.deepEqual(await read(next), ['other'])
  await next.close()
})
