import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { MountRecords } from '../../../node/mount/mount-records.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { recordOf } from './mount-fakes.ts'

const rootfs = digestOf(Buffer.from('rootfs'))
const [one, two] = [recordOf(rootfs, '/one'), recordOf(rootfs, '/two')]
const empty = { mounts: async () => [], deleteMount: async () => undefined }

test('records are there for the next daemon until they are deleted', async (t) => {
  const directory = join(temporaryDirectory(t), 'run/mounts')
  const records = new MountRecords({ catalog: empty }, { directory })
  assert.deepEqual(await records.list(assert.ifError), [])
  for (const record of [one, two]) await records.put(record)
  const moved = { ...one, identity: '1 0:5 /' }
  await records.put(moved)
  await records.delete(two)
  await records.delete(two)
  assert.deepEqual(await new MountRecords({ catalog: empty }, { directory }).list(assert.ifError), [moved])
  assert.equal(readdirSync(directory).length, 1)
})

test('records of an earlier version come from the catalog, once', async (t) => {
  const directory = join(temporaryDirectory(t), 'mounts')
  const former = new Map([one, two].map((record) => [record.directory, record]))
  const catalog = {
    mounts: async () => [...former.values()],
    deleteMount: async (mountPoint: string) => void former.delete(mountPoint),
  }
  const records = new MountRecords({ catalog }, { directory })
  assert.equal((await records.list(assert.ifError)).length, 2)
  assert.equal(former.size, 0)
  await records.delete(one)
  assert.deepEqual(await records.list(assert.ifError), [two])
})

test('a record that cannot be read is told and stays; one that was being written is passed over', async (t) => {
  const directory = temporaryDirectory(t)
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, 'broken.json'), '{')
  writeFileSync(join(directory, 'half.json.partial'), '{')
  const records = new MountRecords({ catalog: empty }, { directory })
  await records.put(one)
  const told: string[] = []
  assert.deepEqual(await records.list((key) => told.push(key)), [one])
  assert.deepEqual(told, [join(directory, 'broken.json')])
  assert.ok(readdirSync(directory).includes('broken.json'))
})
