import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { privateKeyFromProtobuf } from '@libp2p/crypto/keys'
import { oddImage } from '../../../netlab/images/images.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { InspectResult, MountResult, SeedResult } from '../../../node/control/api.ts'
import { Catalog } from '../../../node/store/catalog.ts'
import { attest } from '../../../protocol/attestation.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { stateName } from '../../../protocol/name-statement.ts'
import { rootfsDigest } from '../../../protocol/rootfs-manifest.ts'
import { reserve } from '../../support/stores.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { PublishedLab } from './published-lab.ts'

/** Starts a daemon, and waits until it has met the others. */
async function joining(t: TestContext, options: string[], others: readonly DaemonProcess[]): Promise<DaemonProcess> {
  const addresses = await Promise.all(others.map(async (other) => (await other.status()).addresses[0]!))
  const daemon = await DaemonProcess.start(t, [...options, ...addresses.flatMap((address) => ['--bootstrap', address])])
  while ((await daemon.status()).peers.length < others.length) await new Promise((resolve) => setTimeout(resolve, 50))
  return daemon
}

/** Has a host that knows the image say, under its own key, that it is another rootfs. @returns the digest of that one */
async function turnBad(daemon: DaemonProcess): Promise<string> {
  await daemon.stop()
  await using catalog = await Catalog.open(
    { reserve, log: silentLog },
    { directory: join(daemon.directory, 'state/catalog') },
  )
  const [record] = await catalog.images()
  const manifest = (await catalog.rootfs(record!.rootfsDigest))!
  const [first, ...rest] = manifest.layers
  const digests = Uint8Array.from(first!.chunks.digests)
  digests[3]! ^= 1
  const lengths = Array.from({ length: first!.chunks.count }, (_, i) => first!.chunks.lengthAt(i))
  const forged = { ...manifest, layers: [{ ...first!, chunks: new ChunkTable(lengths, digests) }, ...rest] }
  const key = privateKeyFromProtobuf(readFileSync(join(daemon.directory, 'state/identity.key')))
  const signer = { key: record!.attestation.key, sign: async (bytes: Uint8Array) => await key.sign(bytes) }
  const statement = { ...record!, rootfsDigest: await catalog.putRootfs(forged) }
  await catalog.putImage({
    ...statement,
    attestation: await attest(statement, signer),
    nameStatement: await stateName(statement, Date.now() + 60_000, signer),
  })
  await catalog[Symbol.asyncDispose]()
  await daemon.startAgain()
  return rootfsDigest(forged)
}

test('what one member says is marked, waits to be verified, and does not go on to hosts that it never met', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  const { digest } = await maker.json<SeedResult>('seed', image)
  const { peerId } = await maker.status()
  assert.deepEqual((await maker.status()).images[0]!.belief, { name: 'own-past', index: 'built' })
  const first = await joining(t, options, [maker])
  lab.requests()
  const told = await first.json<MountResult>('mount', image, first.target('told'), '--pull', 'never')
  assert.deepEqual(lab.requests(), [], 'the registry is not asked')
  const onWord = { name: 'member', namedBy: peerId, index: 'member', maker: peerId }
  assert.deepEqual([told.digest, told.belief], [digest, onWord])
  const { images, toVerify } = await first.status()
  assert.deepEqual([images[0]!.belief, toVerify], [onWord, 1])
  assert.deepEqual((await first.json<InspectResult>('inspect', image)).belief, onWord)
  const text = await first.cli('status')
  assert.match(
    text.stdout,
    new RegExp(`named on the word of a member ${peerId}; built by a member, not verified ${peerId}`),
  )
  assert.match(text.stdout, /to verify {5}1 images/)

  await maker.stop()
  const second = await joining(t, options, [first])
  const refused = await second.cli('mount', image, second.target('mnt'), '--pull', 'never')
  assert.match(refused.stderr, /neither this host nor its region knows/)
  // The first host has it from the registry now: that is its own to state. The rootfs still is not.
  const confirmed = await first.json<MountResult>('mount', image, first.target('confirmed'), '--pull', 'always')
  assert.deepEqual(confirmed.belief, { name: 'registry', index: 'member', maker: peerId })
  const still = await second.cli('mount', image, second.target('mnt-0'), '--pull', 'never')
  assert.match(still.stderr, /neither this host nor its region knows/)
  const built = await second.json<MountResult>('mount', image, second.target('mnt-1'))
  assert.deepEqual([built.digest, built.belief.name], [digest, 'registry'])
})

test('a bad member that an honest one contradicts: a fresh host builds the image itself, and knows the liar', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const { image, options } = lab
  const honest = await DaemonProcess.start(t, options)
  const bad = await DaemonProcess.start(t, options)
  const { digest } = await honest.json<SeedResult>('seed', image)
  await bad.json<SeedResult>('seed', image)
  const { peerId } = await bad.status()
  const forged = await turnBad(bad)
  const fresh = await joining(t, options, [honest, bad])
  const mounted = await fresh.json<MountResult>('mount', image, fresh.target('mnt'))
  assert.deepEqual([mounted.digest, mounted.belief], [digest, { name: 'registry', index: 'built' }])
  assert.match(fresh.log, new RegExp(`members contradict each other about the rootfs.*${peerId}`))
  assert.match(fresh.log, new RegExp(`"error".*rootfs of an image is false.*${forged}.*${peerId}`))
  assert.deepEqual(
    (await fresh.status()).peers.map(({ peer }) => peer),
    [(await honest.status()).peerId],
    'the liar is banned, the honest member is not',
  )
  // It remembers, when it starts again.
  await fresh.stop()
  await fresh.startAgain()
  const again = await fresh.json<MountResult>('mount', image, fresh.target('again'), '--pull', 'never')
  assert.equal(again.digest, digest)
})
