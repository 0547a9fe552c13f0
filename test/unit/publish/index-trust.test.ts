import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLog } from '../../../node/base/log.ts'
import { IndexTrust } from '../../../node/publish/index-trust.ts'
import { attest } from '../../../protocol/attestation.ts'
import { digestOf } from '../../../protocol/digest.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { testKey } from '../../support/test-key.ts'

const [own, member, stranger] = [await testKey(1), await testKey(2), await testKey(3)]
const membership = { peers: (): { peer: string }[] => [{ peer: member.key }] }

async function recordBy(maker: typeof own): Promise<ImageRecord> {
  const manifest = '{}'
  const statement = {
    manifestDigest: digestOf(Buffer.from(manifest)),
    format: 'ext4',
    rootfsDigest: digestOf(Buffer.from('rootfs')),
  } as const
  return { ...statement, reference: 'r', platform: 'p', manifest, attestation: await attest(statement, maker) }
}

test('without listed keys members are believed in what they pass on; only members can publish', async () => {
  let log = ''
  const trust = new IndexTrust(
    { own: own.key, membership, log: createLog('warn', (line) => (log += line), {}) },
    { keys: [] },
  )
  const record = await recordBy(stranger)
  assert.equal(trust.acceptsFromPeer(record, member.key), true)
  assert.equal(trust.acceptsStored(record, { isUnverified: true }), true)
  assert.equal(log, '')
  for (const [maker, accepted] of [
    [own, true],
    [member, true],
    [stranger, false],
  ] as const) {
    const made = await recordBy(maker)
    assert.equal(trust.acceptsPublished(made, made.attestation, 'r'), accepted)
  }
  assert.match(log, new RegExp(`not accepted.*${stranger.key}.*--trust-index-key`))
  const forged = { ...record, rootfsDigest: digestOf(Buffer.from('forged')) }
  assert.equal(trust.acceptsFromPeer(forged, member.key), false)
  assert.equal(trust.acceptsFromPeer({ ...record, manifest: '{"layers":[]}' }, member.key), false)
  const byOwn = await recordBy(own)
  assert.equal(trust.acceptsPublished({ ...byOwn, rootfsDigest: forged.rootfsDigest }, byOwn.attestation, 'r'), false)
})

test('with listed keys only those and the own key are accepted, wherever a record comes from', async () => {
  const trust = new IndexTrust(
    { own: own.key, membership, log: createLog('error', () => undefined, {}) },
    { keys: [stranger.key] },
  )
  for (const [maker, accepted] of [
    [own, true],
    [member, false],
    [stranger, true],
  ] as const) {
    const record = await recordBy(maker)
    assert.equal(trust.acceptsFromPeer(record, member.key), accepted)
    assert.equal(trust.acceptsStored(record, { isUnverified: false }), accepted)
    assert.equal(trust.acceptsStored(record, { isUnverified: true }), accepted && maker !== own)
    assert.equal(trust.acceptsPublished(record, record.attestation, 'r'), accepted)
  }
})
