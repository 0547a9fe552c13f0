import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestHex } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import { Mounts } from '../../../node/mount/mounts.ts'
import {
  chunkOf,
  FakeBoots,
  FakeCatalog,
  FakeDriver,
  FakeFetcher,
  FakePlacement,
  keepingLog,
  recordOf,
  rootfsOf,
} from './mount-fakes.ts'

const { signal } = new AbortController()
const app = rootfsOf(0, 1, 2)
const base = rootfsOf(3, 4)

interface Host {
  catalog: FakeCatalog
  driver: FakeDriver
  placement: FakePlacement
  fetcher: FakeFetcher
  boots: FakeBoots
  mounts: Mounts
  warnings: string[]
  errors: string[]
}

/** A host; `previous` is the one whose daemon it replaces. */
async function host(previous?: Pick<Host, 'catalog' | 'placement'>, rootfs = [app, base]): Promise<Host> {
  const catalog = previous?.catalog ?? new FakeCatalog()
  const placement = previous?.placement ?? new FakePlacement()
  for (const { manifest, digest } of rootfs) catalog.manifests.set(digest, manifest)
  const [driver, fetcher, boots] = [new FakeDriver(), new FakeFetcher(), new FakeBoots()]
  const [{ log, messages: warnings }, { log: errorLog, messages: errors }] = [keepingLog('warn'), keepingLog('error')]
  const mounts = new Mounts(
    {
      catalog,
      records: catalog,
      driver,
      placement,
      fetcher,
      inventory: fetcher,
      boots,
      log: { ...log, error: errorLog.error },
    },
    { readDeadlineMs: 1000 },
  )
  await mounts.restore()
  await mounts.serve()
  return { catalog, driver, placement, fetcher, boots, mounts, warnings, errors }
}

const rejectsWith = async (promise: Promise<unknown>, code: ErrorCode): Promise<void> =>
  await assert.rejects(promise, (error) => isP2pfsError(error, code))

test('a mounted rootfs is served, recorded and booted; after its last mount it is none of these', async () => {
  const { catalog, driver, boots, mounts } = await host()
  for (const directory of ['/one', '/two']) {
    await mounts.mount(app.manifest, recordOf(app.digest, directory), { signal })
  }
  assert.deepEqual([...boots.running], [app.digest])
  assert.deepEqual([...catalog.records.keys()], ['/one', '/two'])
  assert.deepEqual(await driver.read(app.digest, 1), chunkOf(1))
  await mounts.umount('/one')
  assert.deepEqual(await driver.read(app.digest, 2), chunkOf(2))
  await mounts.umount('/two')
  assert.deepEqual([[...driver.images], [...boots.running], mounts.list(), catalog.records.size], [[], [], [], 0])
  await rejectsWith(driver.read(app.digest, 1), 'missing')
})

test('a mount that the kernel reads by itself is served to others, and not booted', async () => {
  const { placement, boots, driver, mounts } = await host()
  placement.answers = 'native'
  await mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  assert.deepEqual([[...driver.images].length, [...boots.running]], [1, []])
  assert.deepEqual([...(await mounts.reads()).values()], ['native'])
})

test('a directory takes one mount; one without a mount can be neither reset nor unmounted', async () => {
  const { mounts } = await host()
  await mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  await rejectsWith(mounts.mount(base.manifest, recordOf(base.digest, '/one'), { signal }), 'conflict')
  await rejectsWith(mounts.umount('/two'), 'missing')
  await rejectsWith(mounts.reset('/two'), 'missing')
  assert.deepEqual(await mounts.reset('/one'), { rootfs: '/one' })
})

test('a directory that is being mounted cannot be mounted a second time, other directories can', async () => {
  const { placement, mounts } = await host()
  const gate = Promise.withResolvers<void>()
  placement.gate = gate.promise
  const mounting = mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  await rejectsWith(mounts.mount(base.manifest, recordOf(base.digest, '/one'), { signal }), 'conflict')
  placement.gate = Promise.resolve()
  await mounts.mount(base.manifest, recordOf(base.digest, '/two'), { signal })
  gate.resolve()
  await mounting
  assert.deepEqual(
    mounts.list().map(({ directory }) => directory),
    ['/two', '/one'],
  )
})

test('a mount that cannot be placed leaves no record and serves nothing', async () => {
  const { catalog, driver, placement, boots, mounts } = await host()
  placement.failure = new P2pfsError('missing', 'no such directory')
  await rejectsWith(mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal }), 'missing')
  assert.deepEqual([catalog.records.size, driver.images.size, boots.running.size, mounts.list()], [0, 0, 0, []])
  placement.failure = undefined
  await mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
})

test('a mount that is in use stays as it is', async () => {
  const { catalog, driver, placement, mounts } = await host()
  await mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  placement.busy.add(recordOf(app.digest, '/one').id)
  await rejectsWith(mounts.umount('/one'), 'conflict')
  await rejectsWith(mounts.reset('/one'), 'conflict')
  assert.deepEqual([catalog.records.size, mounts.list().length], [1, 1])
  assert.deepEqual(await driver.read(app.digest, 0), chunkOf(0))
})

test('a tree is released with the last mount that needs it', async () => {
  const { placement, mounts } = await host()
  const tree = { as: 'tree' } as const
  await mounts.mount(app.manifest, recordOf(app.digest, '/one', tree), { signal })
  await mounts.mount(app.manifest, recordOf(app.digest, '/two', tree), { signal })
  await mounts.mount(app.manifest, recordOf(app.digest, '/drive'), { signal })
  const trees = (): string[] => [...placement.trees]
  await mounts.umount('/one')
  assert.deepEqual(trees(), [digestHex(app.digest)])
  await mounts.umount('/two')
  assert.deepEqual(trees(), [])
})

test('the next daemon takes over the mounts that stand, and forgets the others', async () => {
  const first = await host()
  await first.mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  await first.mounts.mount(base.manifest, recordOf(base.digest, '/two'), { signal })
  await first.mounts.close()
  first.placement.placed.delete('/two')
  const second = await host(first)
  assert.deepEqual(
    second.mounts.list().map(({ directory }) => directory),
    ['/one'],
  )
  assert.deepEqual([...second.catalog.records.keys()], ['/one'])
  assert.deepEqual(second.placement.kept, ['/one'])
  assert.deepEqual([...second.driver.images], [digestHex(app.digest)])
  assert.deepEqual(second.warnings, ['mount is gone since the daemon was last here'])
  await second.mounts.umount('/one')
})

test('a mount is the same by whatever name its directory is called, also after a rename', async () => {
  const { placement, mounts } = await host()
  placement.links.set('/var/run/one', '/run/one')
  await mounts.mount(app.manifest, recordOf(app.digest, '/var/run/one'), { signal })
  await rejectsWith(mounts.mount(app.manifest, recordOf(app.digest, '/run/one'), { signal }), 'conflict')
  await mounts.umount('/run/one')
  await mounts.mount(app.manifest, recordOf(app.digest, '/run/one'), { signal })
  await mounts.umount('/var/run/one')
  for (const name of ['/old', '/new']) {
    await mounts.mount(app.manifest, recordOf(app.digest, '/old'), { signal })
    placement.rename('/old', '/new')
    await rejectsWith(mounts.mount(app.manifest, recordOf(app.digest, '/old'), { signal }), 'conflict')
    await mounts.reset(name)
    await mounts.umount(name)
    assert.deepEqual([mounts.list(), placement.placed.size], [[], 0])
  }
})

test('the next daemon knows a mount whose directory was renamed, and one that was reset', async () => {
  const first = await host()
  await first.mounts.mount(app.manifest, recordOf(app.digest, '/old'), { signal })
  await first.mounts.mount(app.manifest, recordOf(app.digest, '/other'), { signal })
  await first.mounts.reset('/other')
  first.placement.rename('/old', '/new')
  const second = await host(first)
  assert.deepEqual(second.placement.kept, ['/old', '/other'])
  await second.mounts.umount('/new')
  await second.mounts.umount('/other')
  assert.deepEqual([second.mounts.list(), second.catalog.records.size], [[], 0])
})

test('a mount that the user has ended by hand is not taken for the next one that the kernel gives its id', async () => {
  const { placement, mounts } = await host()
  await mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  placement.placed.delete('/one')
  placement.next = 0
  await mounts.mount(app.manifest, recordOf(app.digest, '/two'), { signal })
  await mounts.umount('/two')
  assert.deepEqual([[...placement.placed], mounts.list().map(({ directory }) => directory)], [[], ['/one']])
  await mounts.umount('/one')
})

test('the owners of all mounts of a rootfs may open it, also for the next daemon, until their mounts end', async () => {
  const first = await host()
  const name = digestHex(app.digest)
  const owner = (uid: number): { owner: { uid: number; gid: number } } => ({ owner: { uid, gid: 7 } })
  await first.mounts.mount(app.manifest, recordOf(app.digest, '/one', owner(1000)), { signal })
  await first.mounts.mount(app.manifest, recordOf(app.digest, '/two', owner(1001)), { signal })
  await first.mounts.mount(app.manifest, recordOf(app.digest, '/three'), { signal })
  await first.mounts.mount(base.manifest, recordOf(base.digest, '/other', owner(1002)), { signal })
  assert.deepEqual(first.driver.owners.get(name), [1000, 1001])
  const second = await host(first)
  assert.deepEqual(second.driver.owners.get(name), [1000, 1001])
  assert.deepEqual(second.driver.owners.get(digestHex(base.digest)), [1002])
  second.placement.busy.add(recordOf(app.digest, '/one').id)
  await rejectsWith(second.mounts.umount('/one'), 'conflict')
  assert.deepEqual(second.driver.owners.get(name), [1000, 1001], 'an umount that is refused ends no right')
  second.placement.busy.clear()
  await second.mounts.umount('/one')
  assert.deepEqual(second.driver.owners.get(name), [1001])
  await second.mounts.umount('/two')
  assert.deepEqual(second.driver.owners.get(name), [])
  second.placement.failure = new P2pfsError('conflict', 'taken')
  await rejectsWith(
    second.mounts.mount(app.manifest, recordOf(app.digest, '/four', owner(1003)), { signal }),
    'conflict',
  )
  assert.deepEqual(second.driver.owners.get(name), [])
})

test('a mount whose rootfs is lost stays, and can be ended', async () => {
  const first = await host()
  await first.mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  first.catalog.manifests.delete(app.digest)
  const { catalog, placement } = first
  const second = await host({ catalog, placement }, [base])
  assert.deepEqual([second.placement.kept, second.errors.length], [['/one'], 1])
  await second.mounts.umount('/one')
  assert.deepEqual([second.mounts.list(), catalog.records.size], [[], 0])
})

test('a rootfs whose last mount has ended is served until the kernel has dropped it', async () => {
  const { driver, boots, mounts } = await host()
  driver.heldElsewhere = true
  await mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  await mounts.umount('/one')
  assert.deepEqual([[...driver.images], [...boots.running], mounts.list()], [[], [], []])
  assert.deepEqual(await driver.read(app.digest, 1), chunkOf(1))
  await mounts.mount(app.manifest, recordOf(app.digest, '/two'), { signal })
  assert.deepEqual([...driver.images], [digestHex(app.digest)])
  await mounts.umount('/two')
  driver.drop(app.digest)
  await rejectsWith(driver.read(app.digest, 1), 'missing')
})

test('a rootfs that the kernel has from an earlier daemon is served without a mount', async () => {
  const { driver, mounts } = await host()
  assert.equal(await driver.use(rootfsOf(7).digest), undefined)
  assert.equal(await driver.use(app.digest), digestHex(app.digest))
  assert.deepEqual(await driver.read(app.digest, 1), chunkOf(1))
  await mounts.mount(app.manifest, recordOf(app.digest, '/one'), { signal })
  await mounts.umount('/one')
})

test('nothing is tidied away if a mount record cannot be read: it may belong to that mount', async () => {
  const first = await host()
  first.placement.kept = undefined
  first.catalog.malformed = ['mount//x']
  const second = await host(first)
  assert.deepEqual([second.placement.kept, second.errors.length], [undefined, 1])
})

test('the daemon after one that had credentials for mounts says once which of them have none now', async () => {
  const before = await host()
  for (const directory of ['/with', '/too'])
    await before.mounts.mount(app.manifest, { ...recordOf(app.digest, directory), hadCredentials: true }, { signal })
  await before.mounts.mount(base.manifest, recordOf(base.digest, '/without'), { signal })
  assert.deepEqual(before.warnings, [])
  const { warnings } = await host(before)
  assert.equal(warnings.length, 1)
  assert.match(warnings[0]!, /credentials of mounts are gone/)
})
