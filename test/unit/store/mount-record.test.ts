import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { encodeMountRecord, parseMountRecord, type MountRecord } from '../../../node/store/mount-record.ts'

const digest = digestOf(Buffer.from('a'))
const record: MountRecord = {
  reference: 'docker.io/library/debian:12',
  platform: 'linux/amd64',
  format: 'ext4',
  id: '5d8b5f4e-9f2b-4a39-8f0d-3d2c1b0a9f8e',
  directory: '/run/vm1',
  identity: '217 0:52 /abc',
  rootfsDigest: digest,
  manifestDigest: digest,
  origin: 'built',
  resolution: 'registry',
  as: 'drive',
  writable: false,
  scratchBytes: 2 ** 30,
  mountedAt: '2026-01-01T00:00:00.000Z',
}

test('a mount record is read back as it was written; fields of a later version are ignored', () => {
  assert.deepEqual(parseMountRecord(encodeMountRecord(record)), record)
  assert.deepEqual(parseMountRecord(Buffer.from(JSON.stringify({ ...record, colour: 'red' }))), record)
  for (const more of [
    { owner: { uid: 1000, gid: 0 } },
    { allowOthers: true },
    { allowOthers: false },
    { hadCredentials: true as const },
  ])
    assert.deepEqual(parseMountRecord(encodeMountRecord({ ...record, ...more })), { ...record, ...more })
})

test('a mount record that is not one is refused', () => {
  const changes: Record<string, unknown>[] = [
    { id: '../../etc' },
    { id: undefined },
    { directory: 3 },
    { identity: 217 },
    { rootfsDigest: 'sha256:abc' },
    { as: 'house' },
    { writable: 'yes' },
    { scratchBytes: -1 },
    { format: 'ntfs' },
    { owner: 1000 },
    { owner: { uid: 1000 } },
    { owner: { uid: -1, gid: 0 } },
    { owner: { uid: 2 ** 32 - 1, gid: 0 } },
    { allowOthers: 'yes' },
    { hadCredentials: 'hunter2' },
    { origin: 'elsewhere' },
  ]
  const malformed = ['', '[', 'null', '[]', ...changes.map((change) => JSON.stringify({ ...record, ...change }))]
  for (const text of malformed)
    assert.throws(
      () => parseMountRecord(Buffer.from(text)),
      (error) => isP2pfsError(error, 'invalid'),
      text,
    )
})
