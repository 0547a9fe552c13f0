import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
// Never the synchronous forms on the mount: the registry answers from this very thread.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { oddImage } from '../../../netlab/images/images.ts'
import { IndexTrust } from '../../../node/publish/index-trust.ts'
import type { MountResult, SeedResult } from '../../../node/control/api.ts'
import { createLog } from '../../../node/base/log.ts'
import { attest } from '../../../protocol/attestation.ts'
import { digestOf } from '../../../protocol/digest.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { testKey } from '../../support/test-key.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { hash, PublishedLab } from './published-lab.ts'

const [own, member, stranger] = [await testKey(1), await testKey(2), await testKey(3)]

async function recordBy(maker: typeof own): Promise<ImageRecord> {
  const manifest = '{}'
  const statement = {
    manifestDigest: digestOf(Buffer.from(manifest)),
    format: 'ext4',
    rootfsDigest: digestOf(Buffer.from('rootfs')),
  } as const
  return { ...statement, reference: 'r', platform: 'p', manifest, attestation: await attest(statement, maker) }
}

test('without listed keys members vouch for what they pass on, and in a registry only their own word counts', async () => {
  let log = ''
  const trust = new IndexTrust(
    { own: () => own.key, members: () => [member.key], log: createLog('warn', (line) => (log += line), {}) },
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

test('with listed keys only those and the own count, wherever a record comes from', async () => {
  const trust = new IndexTrust(
    { own: () => own.key, members: () => [member.key], log: createLog('error', () => undefined, {}) },
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

test('a host with listed keys takes from peers what those have signed, and builds all else from the layers themselves', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  const { digest } = await maker.json<SeedResult>('seed', image)
  const whole = hash(await readFile((await maker.json<MountResult>('mount', image, maker.target('mnt'))).rootfs))
  const { peerId, addresses } = await maker.status()
  const meeting = async (...more: string[]): Promise<DaemonProcess> => {
    const daemon = await DaemonProcess.start(t, [...options, '--bootstrap', addresses[0]!, ...more])
    while ((await daemon.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
    return daemon
  }
  const cases: [string[], string][] = [
    [[], 'peer'],
    [['--trust-index-key', peerId], 'peer'],
    [['--trust-index-key', stranger.key], 'built'],
  ]
  for (const [more, origin] of cases) {
    const daemon = await meeting(...more)
    lab.requests()
    const mounted = await daemon.json<MountResult>('mount', image, daemon.target('mnt'))
    assert.deepEqual(
      [mounted.origin, mounted.digest, hash(await readFile(mounted.rootfs))],
      [origin, digest, whole],
      more.join(' '),
    )
    const layersRead = new Set(lab.ofLayers(lab.requests()).map(({ path }) => path)).size
    assert.equal(layersRead, origin === 'built' ? lab.layers.size : 0, 'indexes of peers are not signed')
    if (origin === 'built') assert.match(daemon.log, new RegExp(`not accepted.*${peerId}`))
    await daemon.stop()
  }
})

test('what was taken before keys were listed is built again', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  const { digest } = await maker.json<SeedResult>('seed', image)
  const { addresses } = await maker.status()
  const file = join(temporaryDirectory(t), 'config.json')
  writeFileSync(file, JSON.stringify({ bootstrap: addresses }))
  const daemon = await DaemonProcess.start(t, [...options, '--config', file])
  while ((await daemon.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal((await daemon.json<MountResult>('mount', image, daemon.target('before'))).origin, 'peer')
  // Made here, but of what the peer told of the layers.
  await daemon.json<MountResult>('mount', image, daemon.target('erofs'), '--format', 'erofs')
  const refused = await daemon.cli('seed', image, '--publish', '--format', 'erofs')
  assert.match(refused.stderr, /layer indexes that peers told, and cannot sign for it/)
  writeFileSync(file, JSON.stringify({ bootstrap: addresses, trustIndexKey: [stranger.key] }))
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  assert.equal((await daemon.replaced(daemonPid)).mounts.length, 2, 'what is mounted stays')
  lab.requests()
  const after = await daemon.json<MountResult>('mount', image, daemon.target('after'), '--pull', 'missing')
  assert.deepEqual([after.origin, after.digest], ['built', digest])
  assert.ok(lab.ofLayers(lab.requests()).length >= lab.layers.size)
})
