import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { Level } from 'level'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { formatVersion } from '../../../protocol/layer-index.ts'
import { encodeRootfsManifest, rootfsDigest } from '../../../protocol/rootfs-manifest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { createLog, silentLog } from '../../../node/base/log.ts'
import { Catalog } from '../../../node/store/catalog.ts'
import { encodeMountRecord } from '../../../node/store/mount-record.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { testKey } from '../../support/test-key.ts'
import { image, makeJob, makeTarget } from '../seeds/seed-fakes.ts'

/** The disk reserve of a disk that has room. */
const reserve = { release: async (): Promise<void> => undefined }
const a = digestOf(Buffer.from('a'))
const table = new ChunkTable([4096], Buffer.from(a.slice(7), 'hex'))
const manifest = { format: 'ext4', metadata: table, layers: [{ diffId: a, chunks: table }], config: '{}' } as const
const name = { reference: 'docker.io/library/debian:12', platform: 'linux/amd64', format: 'ext4' } as const
const mount = {
  ...name,
  id: 'x',
  directory: '/d',
  rootfsDigest: a,
  manifestDigest: a,
  origin: 'built',
  resolution: 'registry',
  as: 'drive',
  writable: false,
  mountedAt: 'now',
} as const

const lie = { manifestDigest: a, format: 'ext4', rootfsDigest: a, maker: 'x', told: false, foundAtMs: 1 } as const

test('a table that several rootfs have is stored once, and is one table in memory', async (t) => {
  const directory = join(temporaryDirectory(t), 'catalog')
  const big = new ChunkTable(new Float64Array(1000).fill(4096), new Uint8Array(32_000))
  const others = ['1', '2', '3'].map((config) => ({ ...manifest, layers: [{ diffId: a, chunks: big }], config }))
  {
    await using catalog = await Catalog.open({ reserve, log: silentLog }, { directory })
    for (const other of others) await catalog.putRootfs(other)
  }
  {
    await using level = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
    const bytes = (await level.values().all()).reduce((sum, value) => sum + value.length, 0)
    assert.ok(bytes < 40_000, `${bytes} bytes`)
  }
  await using catalog = await Catalog.open({ reserve, log: silentLog }, { directory })
  const read = await Promise.all(others.map(async (other) => await catalog.rootfs(rootfsDigest(other))))
  assert.deepEqual(
    read.map((found) => found?.config),
    ['1', '2', '3'],
  )
  const again = await catalog.rootfs(rootfsDigest(others[1]!))
  assert.equal(again?.layers[0]?.chunks, read[0]?.layers[0]?.chunks)
  assert.deepEqual(await catalog.rootfsBytes(rootfsDigest(others[2]!)), encodeRootfsManifest(others[2]!))
})

test('rootfs manifests that an earlier version stored whole are taken over; one that cannot be read is removed', async (t) => {
  const directory = join(temporaryDirectory(t), 'catalog')
  const digest = rootfsDigest(manifest)
  {
    await using level = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
    await level.put(`${formatVersion}/rootfs/${digest}`, encodeRootfsManifest(manifest))
    await level.put(`${formatVersion}/rootfs/${a}`, new Uint8Array(3))
  }
  for (let i = 0; i < 2; i++) {
    await using catalog = await Catalog.open({ reserve, log: silentLog }, { directory })
    assert.deepEqual(await catalog.rootfsDigests(), [digest])
    assert.deepEqual(await catalog.rootfsBytes(digest), encodeRootfsManifest(manifest))
  }
})

test('what was put is there after a restart', async (t) => {
  const directory = join(temporaryDirectory(t), 'catalog')
  const first = await Catalog.open({ reserve, log: silentLog }, { directory })
  const rootfs = await first.putRootfs(manifest)
  await first.putImage({
    ...name,
    manifestDigest: a,
    manifest: '{}',
    rootfsDigest: rootfs,
    attestation: { key: (await testKey(1)).key, signature: new Uint8Array(64) },
    nameStatement: { key: (await testKey(1)).key, signature: new Uint8Array(64), statedAtMs: 1 },
  })
  await first.putLayer({ diffId: a, tarBytes: 1024, chunks: table, entries: [] })
  await first[Symbol.asyncDispose]()
  const second = await Catalog.open({ reserve, log: silentLog }, { directory })
  assert.equal((await second.image(name))?.rootfsDigest, rootfs)
  assert.equal(await second.image({ ...name, format: 'erofs' }), undefined)
  assert.deepEqual((await second.images()).length, 1)
  assert.deepEqual(await second.rootfsDigests(), [rootfs])
  assert.equal((await second.rootfs(rootfs))?.metadata.id, table.id)
  assert.equal((await second.layer(a))?.tarBytes, 1024)
  await assert.rejects(Catalog.open({ reserve, log: silentLog }, { directory }), (error) =>
    isP2pfsError(error, 'conflict'),
  )
  await second[Symbol.asyncDispose]()
})

test('seed jobs and pins are there after a restart, until they are deleted', async (t) => {
  const directory = join(temporaryDirectory(t), 'catalog')
  const job = makeJob({ targets: [makeTarget('a')] })
  const pin = { ...image, job: job.id, extent: 'hot', untilMs: 5, peer: 'a', sizeBytes: 7 } as const
  const other = { ...pin, rootfsDigest: a }
  {
    await using first = await Catalog.open({ reserve, log: silentLog }, { directory })
    await first.putSeedJob(job, { sync: true })
    await first.putPin(pin)
    await first.putPin(other)
  }
  await using second = await Catalog.open({ reserve, log: silentLog }, { directory })
  assert.deepEqual(await second.seedJobs(), [job])
  assert.equal((await second.pins()).length, 2)
  await second.deletePin(other)
  assert.deepEqual(await second.pins(), [pin])
  await second.deletePin(pin)
  await second.deleteSeedJob(job.id)
  assert.deepEqual([await second.seedJobs(), await second.pins()], [[], []])
})

test('image records of earlier versions, and those that cannot be read, are removed with a line in the log', async (t) => {
  const directory = join(temporaryDirectory(t), 'catalog')
  const level = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
  const old = [
    '3/image/ext4/linux/amd64/x',
    '3/record/ext4/linux/amd64/x',
    '3/record/erofs/linux/amd64/x',
    `3/hearsay/${a}`,
  ]
  for (const key of old) await level.put(key, Buffer.from('not to be read'))
  await level.put(`3/signed/ext4/linux/amd64/${name.reference}`, Buffer.from('not CBOR'))
  await level.put(`3/signed/ext4/linux/amd64/other`, Buffer.from('not CBOR'))
  await level.put(`3/past/linux/amd64/${name.reference}`, Buffer.from('not CBOR'))
  await level.put('lie/x', Buffer.from('not JSON'))
  await level.close()
  let log = ''
  const catalog = await Catalog.open({ reserve, log: createLog('info', (line) => (log += line)) }, { directory })
  assert.match(log, /image records of an earlier version are removed.*"records":2/)
  assert.equal(await catalog.image(name), undefined)
  assert.deepEqual(await catalog.images(), [])
  assert.equal(await catalog.namePast(name), undefined)
  assert.deepEqual(await catalog.lies(), [])
  assert.equal(log.match(/record of the catalog cannot be read; it is removed/g)?.length, 4)
  await catalog[Symbol.asyncDispose]()
  await level.open()
  assert.deepEqual(await level.keys().all(), [])
  await level.close()
})

test('records of another format version are forgotten, which the log says; mounts are not, nor are lies', async (t) => {
  const directory = join(temporaryDirectory(t), 'catalog')
  const level = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
  const old = [
    '2/image/ext4/linux/amd64/x',
    '1/image/ext4/linux/amd64/x',
    `1/rootfs/${a}`,
    '99/layer/x',
    `image/linux/amd64/x`,
    `rootfs/${a}`,
    'layer/x',
    'zzz',
  ]
  for (const key of old) await level.put(key, Buffer.from('not to be read'))
  await level.put('mount//d', encodeMountRecord(mount))
  await level.close()
  const lines: { message: string; records?: number; versions?: string[] }[] = []
  const log = createLog('warn', (line) => lines.push(JSON.parse(line) as (typeof lines)[number]))
  const first = await Catalog.open({ reserve, log }, { directory })
  assert.ok(lines.every(({ message }) => message.startsWith('records of another format version are removed')))
  assert.deepEqual(lines.flatMap(({ versions = [] }) => versions).toSorted(), ['1', '2', '99', 'none', 'none'])
  assert.equal(
    lines.reduce((sum, { records = 0 }) => sum + records, 0),
    old.length,
  )
  await first.putLie(lie)
  await first[Symbol.asyncDispose]()
  lines.length = 0
  const catalog = await Catalog.open({ reserve, log }, { directory })
  assert.deepEqual(lines, [], 'said once')
  assert.deepEqual([await catalog.images(), await catalog.rootfsDigests()], [[], []])
  assert.deepEqual(await catalog.mounts(assert.ifError), [mount])
  await catalog[Symbol.asyncDispose]()
  await level.open()
  assert.deepEqual(await level.keys().all(), [`lie/ext4/${a}/${a}/x`, 'mount//d'])
  await level.close()
})

test('with the last tag of an image its name by digest goes, and not with another one', async (t) => {
  await using catalog = await Catalog.open({ reserve, log: silentLog }, { directory: join(temporaryDirectory(t), 'c') })
  const statement = { key: (await testKey(1)).key, signature: new Uint8Array(64) }
  const record = {
    ...name,
    manifestDigest: a,
    manifest: '{}',
    rootfsDigest: a,
    attestation: statement,
    nameStatement: { ...statement, statedAtMs: 1 },
  }
  const repository = 'host.test:5000/team/app'
  const b = digestOf(Buffer.from('b'))
  const names = [`${repository}:1`, `${repository}:2`, `${repository}@${a}`, `host.test:5000/other/app@${a}`]
  for (const reference of names) await catalog.putImage({ ...record, reference })
  await catalog.putImage({ ...record, reference: `${repository}@${b}`, manifestDigest: b })
  const left = async (): Promise<string[]> =>
    (await catalog.images()).map(({ reference }) => reference.replace(/sha256:\w{64}/, (d) => (d === a ? 'a' : 'b')))
  await catalog.deleteImage({ ...name, reference: `${repository}:1` })
  assert.ok((await left()).includes(`${repository}@a`))
  await catalog.deleteImage({ ...name, reference: `${repository}:2` })
  assert.deepEqual((await left()).toSorted(), ['host.test:5000/other/app@a', `${repository}@b`])
})
