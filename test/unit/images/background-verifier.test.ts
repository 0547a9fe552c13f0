import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { attest } from '../../../protocol/attestation.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import { isRecordSigned, type ImageRecord } from '../../../protocol/image-record.ts'
import { stateName } from '../../../protocol/name-statement.ts'
import { rootfsDigest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { createLog } from '../../../node/base/log.ts'
import { BackgroundVerifier } from '../../../node/images/background-verifier.ts'
import { FalseStatements } from '../../../node/images/false-statements.ts'
import { IndexTrust } from '../../../node/publish/index-trust.ts'
import { Lies } from '../../../node/publish/lies.ts'
import type { ResolvedImage } from '../../../node/registry/image-source.ts'
import type { Catalog } from '../../../node/store/catalog.ts'
import { openCatalog } from '../../support/stores.ts'
import { testKey } from '../../support/test-key.ts'

const [own, member] = [await testKey(1), await testKey(2)]
const table = (text: string): ChunkTable => new ChunkTable([4096], digestToBytes(digestOf(Buffer.from(text))))
const diffId = digestOf(Buffer.from('tar'))
/** The rootfs that the layers of every image here make. */
const right: RootfsManifest = {
  format: 'ext4',
  metadata: table('metadata'),
  layers: [{ diffId, chunks: table('data') }],
  config: '{}',
}
const wrong: RootfsManifest = { ...right, layers: [{ diffId, chunks: table('his data') }] }
const minWaitMs = 60_000
const maxWaitMs = 10 * 60_000

async function recordOf(
  rootfs: RootfsManifest,
  { maker = member, statedBy = member, told = false, reference = 'host.test/app:1' } = {},
): Promise<ImageRecord> {
  const manifest = JSON.stringify({ of: reference })
  const claim = { reference, platform: 'linux/amd64', manifestDigest: digestOf(Buffer.from(manifest)) }
  const statement = { ...claim, format: 'ext4', rootfsDigest: rootfsDigest(rootfs) } as const
  return {
    ...statement,
    manifest,
    attestation: await attest(statement, maker, { told }),
    nameStatement: await stateName(claim, 1, statedBy),
  }
}

/** A host whose clock goes as far as somebody sleeps, and a registry. */
class TestHost {
  readonly catalog: Catalog
  readonly lies: Lies
  readonly trust: IndexTrust
  readonly verifier: BackgroundVerifier
  /** Connected members, by id. */
  members = [member.key]
  readonly banned: string[] = []
  /** Rebuilt images, and when (ms). */
  readonly rebuilt: { image: string; atMs: number; bytesPerSecond: number | undefined }[] = []
  fails: ErrorCode | undefined
  /** Images that the registry was asked for. */
  readonly asked: string[] = []
  log = ''
  nowMs = 0

  private constructor(catalog: Catalog, lies: Lies, { enabled = true, random = () => 0.5, keys = [] as string[] }) {
    this.catalog = catalog
    this.lies = lies
    const log = createLog('info', (line) => (this.log += line))
    const members = (): string[] => this.members
    const membership = {
      roster: {
        get: (peer: string) => members().find((id) => id === peer) && {},
        get size() {
          return members().length + 1
        },
      },
      members: () => this.members.map((id) => ({ id })),
      ban: ({ id }: { id: string }) => void this.banned.push(id),
    }
    this.trust = new IndexTrust({ own: own.key, membership, lies, log }, { keys })
    this.verifier = new BackgroundVerifier(
      {
        catalog,
        registry: {
          resolve: async (reference, platform) => {
            this.asked.push((reference as { repository: string }).repository)
            if (this.fails === undefined)
              return await Promise.resolve({ reference, platform } as unknown as ResolvedImage & { topDigest: never })
            throw new P2pfsError(this.fails, 'away')
          },
        },
        rebuild: {
          of: async (reference, _image, _format, { bytesPerSecond }) => {
            const { repository } = reference as { repository: string }
            this.rebuilt.push({ image: repository, atMs: this.nowMs, bytesPerSecond })
            return await Promise.resolve({ manifest: right, indexes: new Map(), maps: new Map() })
          },
        },
        trust: this.trust,
        lies: new FalseStatements({ own: own.key, catalog, lies, membership: membership as never, log, now: () => 1 }),
        membership,
        signer: own,
        log,
        now: () => this.nowMs,
        random,
        sleep: async (ms, { signal }) => {
          signal.throwIfAborted()
          this.nowMs += ms
          await Promise.resolve()
        },
      },
      { enabled },
    )
  }

  static async create(
    t: TestContext,
    options: { enabled?: boolean; random?: () => number; keys?: string[] } = {},
  ): Promise<TestHost> {
    const catalog = await openCatalog(t)
    const host = new TestHost(catalog, await Lies.open({ catalog }), options)
    t.after(async () => await host.verifier[Symbol.asyncDispose]())
    return host
  }

  async store(rootfs: RootfsManifest, record: ImageRecord): Promise<ImageRecord> {
    await this.catalog.putRootfs(rootfs)
    await this.catalog.putImage(record)
    return record
  }

  /** Resolves when all that waited has had its turn. */
  async idle(): Promise<void> {
    while (this.verifier.pending > 0) await new Promise(setImmediate)
  }
}

test('a rootfs that members told is verified one to ten minutes later, at 8 MiB/s, and then signed by this host', async (t) => {
  for (const [random, atMs] of [
    [0, minWaitMs],
    [0.999_999, maxWaitMs],
  ] as const) {
    const host = await TestHost.create(t, { random: () => random })
    const before = await host.store(right, await recordOf(right))
    host.verifier.start()
    host.verifier.consider(before)
    host.verifier.consider(before)
    await host.idle()
    assert.equal(host.rebuilt.length, 1, 'once')
    assert.equal(Math.round(host.rebuilt[0]!.atMs / 1000), atMs / 1000)
    assert.equal(host.rebuilt[0]!.bytesPerSecond, 8 * 1024 * 1024)
    const record = (await host.catalog.image(before))!
    assert.ok(isRecordSigned(record))
    assert.deepEqual([record.attestation.key, record.attestation.told], [own.key, undefined])
    assert.deepEqual(
      record.nameStatement,
      before.nameStatement,
      'what the name stands for is still the word of the member',
    )
    assert.deepEqual(host.trust.judgeStored(record), { name: 'member', namedBy: member.key, index: 'built' })
    host.verifier.consider(record)
    await host.idle()
    assert.equal(host.rebuilt.length, 1, 'it is believed no more: it is known')
  }
})

test('what this host made of layer indexes that members told is verified, and then signed as read', async (t) => {
  const host = await TestHost.create(t)
  const before = await host.store(right, await recordOf(right, { maker: own, told: true }))
  host.verifier.start()
  await host.idle()
  const record = (await host.catalog.image(before))!
  assert.deepEqual([record.attestation.key, record.attestation.told], [own.key, undefined])
})

test('a lie is dropped, its maker is banned and never believed again, and an operator is told what to do', async (t) => {
  const host = await TestHost.create(t)
  const lie = await host.store(wrong, await recordOf(wrong, { statedBy: own }))
  const tag = await host.store(wrong, {
    ...lie,
    reference: 'host.test/app:2',
    nameStatement: await stateName({ ...lie, reference: 'host.test/app:2' }, 2, member),
  })
  for (const record of [lie, tag]) await host.catalog.putNamePast(record, record)
  await host.catalog.putLayer({ diffId, tarBytes: 1024, chunks: table('his data'), entries: [] }, { unverified: true })
  host.verifier.start()
  await host.idle()
  assert.deepEqual(await host.catalog.images(), [])
  assert.equal((await host.catalog.namePast(lie))?.nameStatement.key, own.key, "this host's own past stays")
  assert.equal(await host.catalog.namePast(tag), undefined, "the liar's word for a name goes")
  assert.equal(await host.catalog.hasLayer(diffId), false, 'an index that a member told may be the cause')
  assert.deepEqual(host.banned, [member.key])
  assert.deepEqual([host.lies.isLiar(member.key), host.lies.isContradicted(lie)], [true, true])
  const again = await recordOf(right, { reference: 'host.test/another:1' })
  assert.deepEqual(host.trust.judgeFromPeer(again, member.key, undefined), { name: undefined, index: undefined })
  const line = host.log.split('\n').find((line) => line.includes('"error"'))!
  assert.match(line, /rootfs of an image is false.*end what runs on it/)
  for (const part of [lie.reference, lie.rootfsDigest, rootfsDigest(right), member.key]) assert.ok(line.includes(part))
})

test('a maker who was told of the layers is not banned for a lie, and not believed again in what he is told', async (t) => {
  const host = await TestHost.create(t)
  await host.store(wrong, await recordOf(wrong, { told: true }))
  host.verifier.start()
  await host.idle()
  assert.deepEqual([host.banned, await host.catalog.images()], [[], []])
  const judge = async (told: boolean): Promise<unknown> =>
    host.trust.judgeFromPeer(await recordOf(right, { told, reference: 'host.test/another:1' }), member.key, undefined)
      .index
  assert.deepEqual([await judge(true), await judge(false)], [undefined, 'member'])
})

test('about three hosts of a region verify an image; the same ones after every start', async (t) => {
  const images = 60
  for (const hosts of [1, 3, 30]) {
    const chosen: string[][] = []
    for (let start = 0; start < 2; start++) {
      const verifier = await TestHost.create(t)
      verifier.fails = 'invalid'
      verifier.members = Array.from({ length: hosts - 1 }, (_, i) => `member ${i}`)
      for (let i = 0; i < images; i++)
        await verifier.store(right, await recordOf(right, { reference: `host.test/app-${i}:1` }))
      verifier.verifier.start()
      await verifier.idle()
      chosen.push(verifier.asked.toSorted())
    }
    assert.deepEqual(chosen[0], chosen[1])
    const share = Math.min(1, 3 / hosts)
    const [least, most] = share === 1 ? [images, images] : [1, images * share * 2]
    assert.ok(chosen[0]!.length >= least && chosen[0]!.length <= most, `${chosen[0]!.length} of ${hosts} hosts`)
  }
})

test('256 images wait at most; what is known, listed, local or no longer used is not verified', async (t) => {
  const host = await TestHost.create(t)
  host.fails = 'invalid'
  for (let i = 0; i < 300; i++) await host.store(right, await recordOf(right, { reference: `host.test/app-${i}:1` }))
  host.verifier.start()
  await host.idle()
  assert.equal(host.asked.length, 256)

  const other = await TestHost.create(t)
  other.verifier.start()
  await other.store(right, await recordOf(right, { maker: own }))
  other.verifier.consider(await recordOf(right, { maker: own }))
  other.verifier.consider(await recordOf(right, { reference: 'local:app' }))
  other.verifier.consider(await recordOf(right, { reference: 'host.test/gone:1' }))
  await other.idle()
  assert.deepEqual(other.rebuilt, [])

  const listing = await TestHost.create(t, { keys: [member.key] })
  await listing.store(right, await recordOf(right))
  listing.verifier.start()
  await listing.idle()
  assert.deepEqual(listing.rebuilt, [])
})

test('an image whose registry is away is tried three times, each time after another wait', async (t) => {
  for (const [fails, tries] of [
    ['unavailable', 3],
    ['invalid', 1],
  ] as const) {
    const host = await TestHost.create(t)
    host.fails = fails
    const record = await host.store(right, await recordOf(right))
    host.verifier.start()
    await host.idle()
    assert.deepEqual([host.asked.length, host.rebuilt.length], [tries, 0])
    assert.ok(host.nowMs >= tries * minWaitMs)
    assert.deepEqual(await host.catalog.image(record), record, 'it stays as it was')
  }
})

test('--verify-believed off verifies nothing', async (t) => {
  const host = await TestHost.create(t, { enabled: false })
  const record = await host.store(right, await recordOf(right))
  host.verifier.start()
  host.verifier.consider(record)
  await host.idle()
  assert.deepEqual([host.rebuilt, host.nowMs], [[], 0])
})
