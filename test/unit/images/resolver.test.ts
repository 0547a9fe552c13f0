import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { attest, type Signer } from '../../../protocol/attestation.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { registryKey, type RegistryWord } from '../../../protocol/messages/registry-word.ts'
import { stateName } from '../../../protocol/name-statement.ts'
import { rootfsDigest, type RootfsFormat, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { createLog } from '../../../node/base/log.ts'
import { ImageResolver, type ImageResolverParts } from '../../../node/images/resolver.ts'
import { RunningImports } from '../../../node/images/running-imports.ts'
import type { ImageRootfs } from '../../../node/model/image.ts'
import type { PublishedRootfs } from '../../../node/publish/published-images.ts'
import { IndexTrust } from '../../../node/publish/index-trust.ts'
import type { ResolvedImage } from '../../../node/registry/image-source.ts'
import { withCaller } from '../../../node/operations/image-request.ts'
import { callerOf, parseReference, type Reference } from '../../../node/registry/reference.ts'
import type { Catalog } from '../../../node/store/catalog.ts'
import { noLies } from '../../support/no-lies.ts'
import { testKey } from '../../support/test-key.ts'
import { tablesOf } from '../../../node/model/rootfs-chunks.ts'
import type { SeedImage } from '../../../protocol/seed-job.ts'
import { openCatalog } from '../../support/stores.ts'

const { signal } = new AbortController()
const [own, member, stranger, other] = [await testKey(1), await testKey(2), await testKey(3), await testKey(4)]
const reference = parseReference('host.test/app:1')
const variant = { platform: 'linux/amd64', format: 'ext4' } as const
const auto = { pull: 'newer', signal } as const
/** The clock of the tests (ms since 1970). */
const todayMs = 1_800_000_000_000

const digest = (text: string): Digest => digestOf(Buffer.from(text))
const table = (text: string): ChunkTable => new ChunkTable([4096], digestToBytes(digest(text)))

/** An image of one layer, which the version determines, as its registry describes it. */
function imageOf(version: string): ResolvedImage {
  const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digest(`blob ${version}`), size: 1 }
  const config = JSON.stringify({ rootfs: { type: 'layers', diff_ids: [digest(`tar ${version}`)] } })
  const manifest = JSON.stringify({
    schemaVersion: 2,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digest(config), size: config.length },
    layers: [layer],
  })
  return {
    reference: 'host.test/app:1',
    platform: variant.platform,
    manifestDigest: digest(manifest),
    manifest,
    config,
    layers: [{ ...layer, diffId: digest(`tar ${version}`), sizeBytes: layer.size }],
  }
}

function rootfsOf({ config, layers }: ResolvedImage, format: RootfsFormat): RootfsManifest {
  return {
    format,
    metadata: table(`metadata ${format} ${config}`),
    layers: layers.map(({ diffId }) => ({ diffId, chunks: table(diffId) })),
    config,
  }
}

/** The image as `maker` has built it. @param how `statedBy`: who says that the tag stands for it, by default the maker */
async function builtBy(
  maker: Signer,
  version: string,
  format: RootfsFormat = 'ext4',
  {
    statedBy = maker,
    statedAtMs = todayMs - 60 * 60_000,
    told = false,
    manifest = rootfsOf(imageOf(version), format),
  }: { statedBy?: Signer; statedAtMs?: number; told?: boolean; manifest?: RootfsManifest } = {},
): Promise<ImageRootfs> {
  const image = imageOf(version)
  const statement = { manifestDigest: image.manifestDigest, format, rootfsDigest: rootfsDigest(manifest) }
  const { reference, platform } = image
  const attestation = await attest(statement, maker, { told })
  const nameStatement = await stateName(image, statedAtMs, statedBy)
  return {
    record: { reference, platform, manifest: image.manifest, ...statement, attestation, nameStatement },
    manifest,
  }
}

/** A registry that has one tag. */
class FakeRegistry {
  /** The image that the tag stands for. */
  version: string | undefined = '1'
  /** Whether the tag names an index of an index. */
  isNested = false
  /** Answers instead of the registry. */
  fails: ((signal: AbortSignal) => Promise<never>) | undefined
  /** The same, but the registry answers for the tag itself. */
  failsAfterTag: ((signal: AbortSignal) => Promise<never>) | undefined
  /** One for the tag, and one for the rest of an image. */
  requests = 0

  topDigest: ImageResolverParts['registry']['topDigest'] = async (reference, { signal }) => {
    this.requests++
    if (this.fails !== undefined) return await this.fails(signal)
    this.#checkReader(reference)
    return await Promise.resolve(this.#topDigest())
  }

  resolve: ImageResolverParts['registry']['resolve'] = async (_reference, _platform, { signal }) => {
    this.requests++
    const fails = this.failsAfterTag ?? this.fails
    if (fails !== undefined) return await fails(signal)
    return await Promise.resolve({ ...imageOf(this.version!), topDigest: this.#topDigest() })
  }

  /** Callers that may read the image, by their keys; everybody where it is not given. */
  readers: Set<string> | undefined

  checkAccess: ImageResolverParts['registry']['checkAccess'] = async (reference, { signal }) => {
    this.requests++
    if (this.fails !== undefined) return await this.fails(signal)
    return await Promise.resolve(this.#checkReader(reference))
  }

  #checkReader(reference: Reference): void {
    if (this.readers?.has(callerOf(reference)?.key ?? '') === false)
      throw new P2pfsError('denied', 'the caller may not read it')
  }

  #topDigest(): Digest {
    if (this.version === undefined) throw new P2pfsError('missing', 'no such tag')
    const { manifestDigest } = imageOf(this.version)
    return this.isNested ? digest(`index of an index of ${manifestDigest}`) : manifestDigest
  }
}

const never = async (signal: AbortSignal): Promise<never> =>
  await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
const unavailable = async (): Promise<never> =>
  await Promise.reject(new P2pfsError('unavailable', 'connection refused'))

/** A host with one peer, and a registry. */
class TestHost {
  readonly registry = new FakeRegistry()
  /** What the members have. */
  readonly peer: ImageRootfs[] = []
  /** What members say of registries, and which they were asked about. */
  words: RegistryWord[] = []
  readonly askedAbout: Digest[] = []
  /** The members that are connected. */
  members = [member.key]
  /** The statements that were found to be false. */
  readonly lies: ImageRecord[] = []
  /** The images that wait to be verified. */
  readonly considered: ImageRecord[] = []
  /** Whether each import took nobody's word for a layer. */
  readonly untold: boolean[] = []
  todayMs = todayMs
  published: PublishedRootfs | undefined
  /** Whether imports use layer indexes that members told, where they may. */
  importsWithTold = false
  /** What those make; by default what the layers make. */
  toldManifest: RootfsManifest | undefined
  readonly contradicted = new Set<Digest>()
  isWhole = false
  nowMs = 0
  /** The images that were imported here, and what for. */
  readonly imported: string[] = []
  readonly tracked = new Set<Digest>()
  log = ''
  readonly catalog: Catalog
  readonly resolver: ImageResolver

  private constructor(
    catalog: Catalog,
    trusted: readonly string[],
    parts: Partial<ImageResolverParts>,
    tagMaxAgeMs: number,
  ) {
    this.catalog = catalog
    const log = createLog('warn', (line) => (this.log += line))
    const membership = { roster: { get: (peer: string) => this.members.find((id) => id === peer) && {} } }
    this.resolver = new ImageResolver(
      {
        catalog,
        region: {
          findImages: async ({ reference, platform, format }, { isOfUse }) =>
            await Promise.resolve(
              this.peer
                .map(({ record }) => ({ record, peer: member.key }))
                .filter(
                  ({ record, peer }) =>
                    record.reference === reference &&
                    record.platform === platform &&
                    record.format === format &&
                    isOfUse?.(record, peer) !== false,
                ),
            ),
          askRegistry: async (key, { onWord }) => {
            this.askedAbout.push(key)
            for (const word of this.words) if (onWord(word, member.key) && word.isSilent) break
            await Promise.resolve()
          },
          fetchRootfs: async (digest) =>
            await Promise.resolve(this.peer.find(({ record }) => record.rootfsDigest === digest)?.manifest),
        },
        registry: this.registry,
        published: { find: async () => await Promise.resolve(this.published) },
        trust: new IndexTrust(
          { own: own.key, membership, lies: noLies, log },
          { keys: trusted, now: () => this.todayMs },
        ),
        verifier: { consider: (record) => void this.considered.push(record) },
        lies: {
          found: async (record) => void (await Promise.resolve(this.lies.push(record))),
          isKnown: ({ rootfsDigest }) => this.contradicted.has(rootfsDigest),
        },
        identity: { peerId: own.key, sign: own.sign },
        importer: {
          importImage: async (_reference, image, format, { untold = false }) => {
            this.imported.push(`${image.manifestDigest} as ${format}`)
            this.untold.push(untold)
            const isUnverified = this.importsWithTold && !untold
            const manifest = (isUnverified ? this.toldManifest : undefined) ?? rootfsOf(image, format)
            return await Promise.resolve({ manifest, isUnverified })
          },
        },
        imports: new RunningImports(),
        stewards: {
          ask: async () => await Promise.resolve(undefined),
          askImporting: async () => await Promise.resolve(undefined),
        },
        inventory: { isWhole: () => this.isWhole, track: ({ id }) => void this.tracked.add(id) },
        log,
        ...parts,
      },
      {
        now: () => this.nowMs,
        today: () => this.todayMs,
        tagMaxAgeMs,
      },
    )
  }

  /** @param options `tagMaxAgeMs`: by default every tag is asked for */
  static async create(
    t: TestContext,
    {
      trusted = [],
      tagMaxAgeMs = 0,
      ...parts
    }: { trusted?: readonly string[]; tagMaxAgeMs?: number } & Partial<ImageResolverParts> = {},
  ): Promise<TestHost> {
    return new TestHost(await openCatalog(t), trusted, parts, tagMaxAgeMs)
  }

  /** Puts an image into the catalog. */
  async store({ record, manifest }: ImageRootfs): Promise<void> {
    await this.catalog.putRootfs(manifest)
    await this.catalog.putImage(record)
  }
}

const outcome = ({ origin, resolution, record }: ImageRootfs & { origin: string; resolution: string }): string[] => [
  origin,
  resolution,
  ['1', '2'].find((version) => imageOf(version).manifestDigest === record.manifestDigest) ?? 'other',
]

test('an unknown image is imported once for all who ask, signed, tracked and stored', async (t) => {
  const host = await TestHost.create(t)
  const resolved = await Promise.all(
    ['first', 'second'].map(async () => await host.resolver.resolveForMount(reference, variant, auto)),
  )
  for (const image of resolved) assert.deepEqual(outcome(image), ['built', 'registry', '1'])
  assert.equal(host.imported.length, 1)
  const { record, manifest } = resolved[0]!
  assert.equal(record.attestation.key, own.key)
  assert.deepEqual(await host.catalog.image(record), record)
  for (const { id } of [manifest.metadata, ...manifest.layers.map(({ chunks }) => chunks)])
    assert.ok(host.tracked.has(id))
})

test('a tag that has not moved is mounted from the record after one request', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'registry', '1'])
  assert.deepEqual([host.registry.requests, host.imported], [1, []])
})

test('a tag that has moved is taken from the region, or else imported', async (t) => {
  for (const origin of ['peer', 'built']) {
    const host = await TestHost.create(t)
    await host.store(await builtBy(own, '1'))
    host.registry.version = '2'
    if (origin === 'peer') host.peer.push(await builtBy(member, '2'))
    const moved = await host.resolver.resolveForMount(reference, variant, auto)
    assert.deepEqual(outcome(moved), [origin, 'registry', '2'])
    assert.equal((await host.catalog.image(moved.record))?.manifestDigest, moved.record.manifestDigest)
  }
})

test('a silent registry is not waited for until it has answered: it is asked beside mounts, once in ten seconds', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  host.registry.fails = unavailable
  const first = await host.resolver.resolveForMount(reference, variant, auto)
  assert.deepEqual(outcome(first), ['local', 'last-known', '1'])
  assert.equal(first.unanswered, 'connection refused')
  assert.match(host.log, /the last known image is used/)
  host.nowMs = 9_999
  const second = await host.resolver.resolveForMount(reference, variant, auto)
  assert.deepEqual([outcome(second), second.unanswered], [['local', 'last-known', '1'], undefined])
  assert.equal(host.registry.requests, 1)
  await host.resolver.resolveForMount(reference, variant, { pull: 'always', signal })
  assert.equal(host.registry.requests, 2, 'pull always asks a silent registry too')
  host.nowMs = 20_000
  for (let mounts = 0; mounts < 3; mounts++) {
    assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), [
      'local',
      'last-known',
      '1',
    ])
    assert.equal(host.registry.requests, 3, 'it is asked once, beside the mounts')
  }
  host.nowMs = 30_000
  host.registry.fails = undefined
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'last-known', '1'])
  await new Promise(setImmediate)
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'registry', '1'])
})

test('a silent registry is not asked beside mounts that would not ask it', async (t) => {
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1'))
  host.registry.fails = unavailable
  await host.resolver.resolveForMount(reference, variant, auto)
  assert.equal(host.registry.requests, 1)
  host.nowMs = 20_000
  const byDigest = parseReference(`host.test/app@${imageOf('1').manifestDigest}`)
  for (const pull of ['missing', 'never'] as const)
    await host.resolver.resolveForMount(reference, variant, { pull, signal })
  await host.resolver.resolveForMount(byDigest, variant, auto)
  host.isWhole = true
  await host.resolver.resolveForMount(reference, variant, auto)
  host.isWhole = false
  await host.store(await builtBy(own, '1', 'ext4', { statedAtMs: todayMs - 1000 }))
  await host.resolver.resolveForMount(reference, variant, auto)
  assert.equal(host.registry.requests, 1)
})

test('a registry that has lost the tag is asked again the next time', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  host.registry.version = undefined
  for (const requests of [1, 2]) {
    const { resolution, unanswered } = await host.resolver.resolveForMount(reference, variant, auto)
    assert.deepEqual([resolution, unanswered, host.registry.requests], ['last-known', 'no such tag', requests])
  }
})

test('a registry may be silent for 2 s if a known image is mounted, and for 40 s otherwise', async (t) => {
  const cases = [
    { known: true, resolve: 'resolveForMount', seconds: 2 },
    { known: false, resolve: 'resolveForMount', seconds: 40 },
    { known: true, resolve: 'resolveForSeed', seconds: 40 },
    { known: false, resolve: 'resolveForSeed', seconds: 40 },
  ] as const
  t.mock.timers.enable({ apis: ['setTimeout'] })
  // It never answers; or the tag has moved, and it does not deliver the new manifest.
  for (const hangs of ['fails', 'failsAfterTag'] as const) {
    for (const { known, resolve, seconds } of cases) {
      const host = await TestHost.create(t)
      if (known) await host.store(await builtBy(own, '1'))
      host.registry.version = '2'
      host.registry[hangs] = async (signal) => {
        const answer = never(signal)
        t.mock.timers.tick(seconds * 1000 - 1)
        assert.equal(signal.aborted, false)
        t.mock.timers.tick(1)
        return await answer
      }
      const message = `host.test did not answer within ${seconds} s`
      const resolving = host.resolver[resolve](reference, variant, auto)
      if (known) {
        const resolved = await resolving
        assert.deepEqual([outcome(resolved), resolved.unanswered], [['local', 'last-known', '1'], message])
      } else await assert.rejects(resolving, (error) => isP2pfsError(error, 'timeout') && error.message === message)
    }
  }
})

test('a registry that is late is not waited for, and its answer is for the next mount', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1'))
  const answer = Promise.withResolvers<void>()
  const { topDigest } = host.registry
  host.registry.topDigest = async (...question) => {
    host.registry.topDigest = topDigest
    t.mock.timers.tick(500)
    await answer.promise
    return await topDigest(...question)
  }
  const first = await host.resolver.resolveForMount(reference, variant, auto)
  assert.deepEqual(
    [outcome(first), first.unanswered],
    [['local', 'last-known', '1'], 'host.test did not answer within 0.5 s'],
  )
  assert.equal(host.resolver.registryWord(registryKey('host.test'))?.isSilent, true, 'members are told')
  answer.resolve()
  while (host.resolver.registryWord(registryKey('host.test'))?.isSilent !== false) await new Promise(setImmediate)
  while ((await host.catalog.namePast(first.record)) === undefined) await new Promise(setImmediate)
  const { requests } = host.registry
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'last-known', '1'])
  assert.equal(host.registry.requests, requests, 'it has been asked for a moment ago')
})

test('a tag that has moved, as is heard late, is taken by the next mount', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1'))
  host.registry.version = '2'
  const { topDigest } = host.registry
  host.registry.topDigest = async (...question) => {
    host.registry.topDigest = topDigest
    t.mock.timers.tick(500)
    await new Promise(setImmediate)
    await new Promise(setImmediate)
    return await topDigest(...question)
  }
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'last-known', '1'])
  while (host.resolver.registryWord(registryKey('host.test'))?.isSilent !== false) await new Promise(setImmediate)
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['built', 'registry', '2'])
})

test('who must have the answer waits for the whole budget, whatever members say: always, proofs, --tag-max-age 0s', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  for (const { tagMaxAgeMs, ...options } of [
    { tagMaxAgeMs: 300_000, pull: 'always', requireAccess: false },
    { tagMaxAgeMs: 300_000, pull: 'newer', requireAccess: true },
    { tagMaxAgeMs: 0, pull: 'newer', requireAccess: false },
  ] as const) {
    const host = await TestHost.create(t, { tagMaxAgeMs })
    await host.store(await builtBy(own, '1'))
    host.words = [{ isSilent: true, usualMs: 1 }]
    host.registry.fails = async (signal) => {
      const answer = never(signal)
      t.mock.timers.tick(1_999)
      await new Promise(setImmediate)
      assert.equal(signal.aborted, false)
      t.mock.timers.tick(1)
      return await answer
    }
    const resolving = host.resolver.resolveForMount(reference, variant, { ...options, signal })
    if (options.requireAccess) await assert.rejects(resolving, { code: 'timeout' })
    else assert.equal((await resolving).unanswered, 'host.test did not answer within 2 s')
    assert.deepEqual(host.askedAbout, [])
  }
})

test('members whose word does not count do not shorten how long a registry is waited for', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  for (const trusted of [[], [stranger.key]]) {
    const host = await TestHost.create(t, { tagMaxAgeMs: 300_000, trusted })
    await host.store(await builtBy(own, '1'))
    host.words = [{ isSilent: true, usualMs: 1 }]
    const waitMs = trusted.length === 0 ? 30 : 500
    host.registry.fails = async (signal) => {
      void (async () => {
        await new Promise(setImmediate)
        t.mock.timers.tick(waitMs)
      })()
      return await never(signal)
    }
    const { unanswered } = await host.resolver.resolveForMount(reference, variant, auto)
    assert.equal(unanswered, `host.test did not answer within ${waitMs / 1000} s`)
    assert.deepEqual(host.askedAbout, [registryKey('host.test')])
  }
})

test('a tag that is refreshed is fresh for the region; a silent registry is left alone for ten seconds', async (t) => {
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1'))
  const refresh = async (of = reference): Promise<string[] | undefined> => {
    const found = await host.resolver.refresh(of, variant, { signal, onProgress: () => undefined })
    return found && outcome({ ...found, resolution: 'registry' })
  }
  assert.deepEqual(await refresh(), ['local', 'registry', '1'])
  const { record } = await host.resolver.resolveForMount(reference, variant, auto)
  assert.deepEqual([record.nameStatement.statedAtMs, host.registry.requests], [host.todayMs, 1])
  host.registry.fails = unavailable
  for (let i = 0; i < 3; i++) await assert.rejects(refresh(), { code: 'unavailable' })
  assert.equal(host.registry.requests, 2)
  assert.equal(host.resolver.registryWord(registryKey('host.test'))?.isSilent, true)
  host.nowMs += 10_000
  host.registry.fails = undefined
  host.registry.version = '2'
  assert.equal(await refresh(), undefined)
  assert.deepEqual([host.registry.requests, host.imported], [4, []], 'what has moved is for those who mount it')
  assert.equal(host.resolver.registryWord(registryKey('host.test'))?.isSilent, false)
  assert.equal(await refresh(parseReference('host.test/other:1')), undefined)
  assert.equal(host.registry.requests, 4, 'what nobody knows is not asked for')
})

test('a tag that names nested indexes is checked with one request', async (t) => {
  const host = await TestHost.create(t)
  host.registry.isNested = true
  // Another host of the region has imported it: this one has not seen the indexes.
  await host.store(await builtBy(member, '1'))
  const requests: number[] = []
  for (const version of ['1', '1', '2', '2']) {
    host.registry.requests = 0
    host.registry.version = version
    const resolved = await host.resolver.resolveForMount(reference, variant, auto)
    assert.deepEqual(outcome(resolved).slice(1), ['registry', version])
    requests.push(host.registry.requests)
  }
  assert.deepEqual(requests, [2, 1, 2, 1])
})

test('errors that say the image itself is wrong are thrown, also if an older image is known', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  host.registry.fails = async () => await Promise.reject(new P2pfsError('invalid', 'not a manifest'))
  await assert.rejects(host.resolver.resolveForMount(reference, variant, auto), (error) =>
    isP2pfsError(error, 'invalid'),
  )
})

test('a mount that is given up does not fall back to the last known image', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  const abort = new AbortController()
  host.registry.fails = async (signal) => {
    abort.abort()
    return await never(signal)
  }
  await assert.rejects(host.resolver.resolveForMount(reference, variant, { pull: 'newer', signal: abort.signal }), {
    name: 'AbortError',
  })
})

test('an image that is whole on this host is mounted without a request, and seeded with one', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  host.isWhole = true
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'last-known', '1'])
  assert.equal(host.registry.requests, 0)
  assert.deepEqual(outcome(await host.resolver.resolveForSeed(reference, variant, { signal })), [
    'local',
    'registry',
    '1',
  ])
  assert.equal(host.registry.requests, 1)
})

test('a digest reference is found by a tag of its repository, and the registry is never asked', async (t) => {
  const host = await TestHost.create(t)
  const stored = await builtBy(own, '1')
  await host.store(stored)
  const pinned = parseReference(`host.test/app@${stored.record.manifestDigest}`)
  for (const pull of ['newer', 'always'] as const) {
    const { resolution, record } = await host.resolver.resolveForMount(pinned, variant, { pull, signal })
    assert.deepEqual([resolution, record.reference], ['digest', `host.test/app@${stored.record.manifestDigest}`])
  }
  assert.equal((await host.resolver.resolveForSeed(pinned, variant, { signal })).resolution, 'digest')
  assert.equal(host.registry.requests, 0)
})

test('pull never fails for an image that nobody knows', async (t) => {
  const host = await TestHost.create(t)
  await assert.rejects(host.resolver.resolveForMount(reference, variant, { pull: 'never', signal }), (error) =>
    isP2pfsError(error, 'missing'),
  )
  assert.equal(host.registry.requests, 0)
})

test('an image that is known in another format is converted; this host comes before the region', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1', 'erofs'))
  host.peer.push(await builtBy(member, '1'))
  const converted = await host.resolver.resolveForMount(reference, variant, { pull: 'missing', signal })
  assert.deepEqual(outcome(converted), ['local', 'last-known', '1'])
  assert.deepEqual([converted.manifest.format, host.registry.requests], ['ext4', 0], 'the registry was not asked')
  assert.deepEqual(host.imported, [`${imageOf('1').manifestDigest} as ext4`])
  const again = await host.resolver.find(reference, variant, { signal })
  assert.deepEqual([again?.manifest.format, host.imported.length], ['ext4', 1])
})

test('a record whose maker is not trusted is ignored, wherever it comes from', async (t) => {
  const host = await TestHost.create(t, { trusted: [stranger.key] })
  await host.store(await builtBy(member, '1'))
  host.peer.push(await builtBy(member, '1'))
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['built', 'registry', '1'])
  assert.match(host.log, /the key of its maker is not accepted/)
})

test('a record that was signed for another rootfs is ignored', async (t) => {
  const host = await TestHost.create(t)
  const { record } = await builtBy(member, '1')
  const forged = { ...rootfsOf(imageOf('1'), 'ext4'), config: '{}' }
  host.peer.push({ record: { ...record, rootfsDigest: rootfsDigest(forged) }, manifest: forged })
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['built', 'registry', '1'])
  assert.match(host.log, /wrong signature/)
})

test('a publication comes before an import, and is converted if it has another format', async (t) => {
  for (const format of ['ext4', 'erofs'] as const) {
    const host = await TestHost.create(t)
    host.published = { ...(await builtBy(stranger, '1', format)), belief: 'listed-key' }
    const resolved = await host.resolver.resolveForMount(reference, variant, auto)
    assert.deepEqual(outcome(resolved), ['registry', 'registry', '1'])
    assert.deepEqual([resolved.manifest.format, host.imported.length], ['ext4', format === 'ext4' ? 0 : 1])
  }
})

test("a steward's image is taken if it is the registry's, and built here if it has other layers", async (t) => {
  for (const { steward, origin } of [
    { steward: await builtBy(member, '1'), origin: 'peer' },
    { steward: await forgedLayers(), origin: 'built' },
  ]) {
    const host: TestHost = await TestHost.create(t, {
      region: {
        findImages: async () => await Promise.resolve([]),
        askRegistry: async () => await Promise.resolve(),
        fetchRootfs: async () => await Promise.resolve(steward.manifest),
      },
      stewards: {
        ask: async (_image, _options, accept) => await accept(steward.record, member.key, signal),
        askImporting: async () => await Promise.resolve(undefined),
      },
    })
    assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), [origin, 'registry', '1'])
  }
})

/** The record of image 1, signed by a member for a rootfs of other layers. */
async function forgedLayers(): Promise<ImageRootfs> {
  const { record } = await builtBy(member, '1')
  const manifest = { ...rootfsOf(imageOf('2'), 'ext4'), config: imageOf('1').config }
  const forged = { ...record, rootfsDigest: rootfsDigest(manifest) }
  return { record: { ...forged, attestation: await attest(forged, member) }, manifest }
}

const missing = { pull: 'missing', signal } as const
const mount = async (host: TestHost, options: { pull: 'newer' | 'missing'; signal: AbortSignal } = auto) =>
  await host.resolver.resolveForMount(reference, variant, options)

/** The rootfs of image 1 as a liar would have it: layers and config are those of the image, the chunks are his. */
const forgedChunks: RootfsManifest = {
  ...rootfsOf(imageOf('1'), 'ext4'),
  layers: imageOf('1').layers.map(({ diffId }) => ({ diffId, chunks: table('his chunks') })),
}

test("a member's word for a tag is taken where the registry is silent, marked, and not passed on as this host's", async (t) => {
  const host = await TestHost.create(t)
  const told = await builtBy(member, '1')
  host.peer.push(told)
  host.registry.fails = unavailable
  const { belief, record, resolution } = await mount(host)
  assert.equal(resolution, 'last-known')
  assert.deepEqual(belief, { name: 'member', namedBy: member.key, index: 'member', maker: member.key })
  assert.deepEqual(record, told.record)
  assert.deepEqual(await host.catalog.image(record), told.record, 'it is served as it came')
  assert.deepEqual(host.considered, [told.record], 'it waits to be verified')
})

test("what the registry confirms is this host's to state; the rootfs stays on the maker's word", async (t) => {
  const host = await TestHost.create(t)
  const told = await builtBy(member, '1')
  host.peer.push(told)
  const { belief, record } = await mount(host)
  assert.deepEqual(belief, { name: 'registry', index: 'member', maker: member.key })
  assert.deepEqual([record.nameStatement.key, record.nameStatement.statedAtMs], [own.key, todayMs])
  assert.deepEqual(record.attestation, told.record.attestation)
  assert.deepEqual(await host.catalog.image(record), record)
  assert.equal(host.registry.requests, 1, 'as many requests as ever')
})

test('what the registry confirms is stated anew when the last statement is a minute old', async (t) => {
  const host = await TestHost.create(t)
  const { record } = await mount(host)
  for (const [ageMs, statedAtMs] of [
    [59_999, todayMs],
    [60_000, todayMs + 60_000],
    [-5000, todayMs - 5000],
  ] as const) {
    host.todayMs = todayMs + ageMs
    const again = await mount(host)
    assert.deepEqual([again.belief.name, again.record.nameStatement.statedAtMs], ['registry', statedAtMs])
    assert.deepEqual(await host.catalog.image(record), again.record)
  }
})

test('a bad member cannot name an image that the registry does not know, nor one that it refuses', async (t) => {
  for (const code of ['missing', 'denied'] as const) {
    const host = await TestHost.create(t)
    host.peer.push(await builtBy(member, '1'))
    host.registry.fails = async () => await Promise.reject(new P2pfsError(code, 'no'))
    await assert.rejects(mount(host), (error) => isP2pfsError(error, code))
  }
})

test('what a member passes on from somebody who is no member is not believed, although the registry is silent', async (t) => {
  const host = await TestHost.create(t)
  host.peer.push(await builtBy(member, '1', 'ext4', { statedBy: stranger }), await builtBy(stranger, '1'))
  host.registry.fails = unavailable
  await assert.rejects(mount(host), (error) => isP2pfsError(error, 'unavailable'))
})

test("this host's own past stands against a member, and a replayed or future tag against nothing", async (t) => {
  const host = await TestHost.create(t)
  host.registry.version = '2'
  await mount(host)
  host.registry.fails = unavailable
  const past = await host.catalog.namePast({ reference: 'host.test/app:1', platform: variant.platform })
  assert.equal(past?.manifestDigest, imageOf('2').manifestDigest)
  await host.catalog.deleteImage({ ...variant, reference: 'host.test/app:1' })
  host.peer.push(
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs - 1 }),
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs + 1 }),
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs * 2 }),
  )
  await assert.rejects(mount(host), (error) => isP2pfsError(error, 'unavailable'))
  host.peer.push(await builtBy(member, '2', 'ext4', { statedBy: stranger }))
  const { belief, record } = await mount(host)
  assert.deepEqual(
    [belief.name, belief.index, record.manifestDigest],
    ['own-past', 'member', imageOf('2').manifestDigest],
    'for what this host knows of the tag, a rootfs is taken from a member',
  )
  assert.equal(record.nameStatement.key, own.key)
})

test('the newest statement of several members wins, in whatever order they come', async (t) => {
  const answers = [
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs - 5000 }),
    await builtBy(other, '2', 'ext4', { statedAtMs: todayMs - 1000 }),
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs - 3000 }),
  ]
  for (const peer of [answers, answers.toReversed()]) {
    const host = await TestHost.create(t)
    host.members.push(other.key)
    host.peer.push(...peer)
    host.registry.fails = unavailable
    assert.deepEqual(outcome(await mount(host)), ['peer', 'last-known', '2'])
  }
})

/** A silent registry answers from now on, and the host has found that out. */
async function answersAgain(host: TestHost): Promise<void> {
  host.registry.fails = undefined
  host.nowMs = 20_000
  await mount(host)
  await new Promise(setImmediate)
}

test("with keys listed a member's word is never taken, and a listed key's is, with the registry silent", async (t) => {
  for (const [maker, name] of [
    [member, undefined],
    [stranger, 'listed-key'],
  ] as const) {
    const host = await TestHost.create(t, { trusted: [stranger.key] })
    host.peer.push(await builtBy(maker, '1'))
    host.registry.fails = unavailable
    if (name === undefined) await assert.rejects(mount(host))
    else {
      const { belief, record } = await mount(host)
      assert.deepEqual(belief, { name, namedBy: stranger.key, index: 'listed-key', maker: stranger.key })
      await answersAgain(host)
      const confirmed = await mount(host)
      assert.equal(confirmed.belief.name, 'registry')
      assert.deepEqual(confirmed.record, record, 'what the operator trusts is worth more to others')
    }
  }
})

test('members that contradict each other are both disbelieved: this host builds the image, and knows who lied', async (t) => {
  const host = await TestHost.create(t)
  host.members.push(other.key)
  const honest = await builtBy(other, '1')
  const lie = await builtBy(member, '1', 'ext4', { manifest: forgedChunks })
  host.peer.push(lie, honest)
  host.published = { ...lie, belief: 'member' }
  const resolved = await mount(host)
  assert.deepEqual([outcome(resolved), resolved.belief.index], [['built', 'registry', '1'], 'built'])
  assert.deepEqual(host.untold, [true], 'nobody is believed about a layer of it')
  assert.deepEqual(host.lies, [lie.record])
  assert.match(host.log, /members contradict each other about the rootfs/)
  for (const key of [member.key, other.key]) assert.ok(host.log.includes(key), 'both makers are named')
})

test('a host that cannot build an image about which members contradict each other says so', async (t) => {
  const host = await TestHost.create(t)
  host.members.push(other.key)
  host.peer.push(await builtBy(member, '1', 'ext4', { manifest: forgedChunks }), await builtBy(other, '1'))
  const explained =
    (code: 'unavailable' | 'missing') =>
    (error: unknown): boolean =>
      isP2pfsError(error, code) &&
      /members contradict each other about host.test\/app:1/.test(error.message) &&
      [member.key, other.key].every((key) => error.message.includes(key))
  host.registry.fails = unavailable
  await assert.rejects(mount(host), explained('unavailable'))
  await assert.rejects(
    host.resolver.resolveForMount(reference, variant, { pull: 'never', signal }),
    explained('missing'),
  )
})

test('a rootfs whose config or layers are not those of the image manifest is not taken, though a member signed it', async (t) => {
  const { config } = imageOf('1')
  const forgeries = [
    { ...rootfsOf(imageOf('1'), 'ext4'), config: config.replace('{', '{"config":{"Entrypoint":["/evil"]},') },
    { ...rootfsOf(imageOf('2'), 'ext4'), config },
    { ...rootfsOf(imageOf('1'), 'ext4'), config: 'not JSON' },
    rootfsOf(imageOf('1'), 'erofs'),
  ]
  for (const manifest of forgeries) {
    for (const silent of [true, false]) {
      const host = await TestHost.create(t)
      host.peer.push(await builtBy(member, '1', 'ext4', { manifest }))
      if (silent) host.registry.fails = unavailable
      if (silent) await assert.rejects(mount(host), (error) => isP2pfsError(error, 'unavailable'))
      else assert.equal((await mount(host)).origin, 'built')
      assert.match(host.log, /peer has built the image from other layers/)
    }
  }
})

test('an image made of layer indexes that members told is signed as such, and waits to be verified', async (t) => {
  const host = await TestHost.create(t)
  host.importsWithTold = true
  const { belief, record } = await mount(host)
  assert.deepEqual(belief, { name: 'registry', index: 'told-layers' })
  assert.equal(record.attestation.told, true)
  assert.deepEqual(host.considered, [record])
})

test('an image that is whole here on the word of a member alone is asked for at the registry', async (t) => {
  const host = await TestHost.create(t)
  host.peer.push(await builtBy(member, '1'))
  host.registry.fails = unavailable
  await mount(host)
  host.isWhole = true
  await answersAgain(host)
  host.registry.version = '2'
  assert.deepEqual(outcome(await mount(host)), ['built', 'registry', '2'])
})

test('a name that is converted to another format stays on the word of whoever stated it', async (t) => {
  const host = await TestHost.create(t)
  const told = await builtBy(member, '1', 'erofs')
  host.peer.push(told)
  const { belief, record } = await mount(host, missing)
  assert.deepEqual(belief, { name: 'member', namedBy: member.key, index: 'built' })
  assert.deepEqual(record.nameStatement, told.record.nameStatement)
})

test('a record in another format that is older than what was accepted since is history', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1', 'erofs', { statedAtMs: todayMs - 10_000 }))
  host.registry.version = '2'
  assert.deepEqual(outcome(await mount(host)), ['built', 'registry', '2'])
  const erofs = await host.resolver.resolveForMount(reference, { ...variant, format: 'erofs' }, missing)
  assert.deepEqual(outcome(erofs), ['local', 'last-known', '2'])
})

test('a member that contradicts what this host has built itself is not believed, and nothing is built again', async (t) => {
  const host = await TestHost.create(t)
  const built = await builtBy(own, '1')
  host.peer.push(await builtBy(member, '1', 'ext4', { manifest: forgedChunks }), built)
  const resolved = await mount(host)
  assert.deepEqual([outcome(resolved), resolved.belief.index], [['peer', 'registry', '1'], 'built'])
  assert.equal(resolved.record.rootfsDigest, built.record.rootfsDigest)
})

test('a lie about a layer that is told again is found out: this host reads the layers', async (t) => {
  const host = await TestHost.create(t)
  host.importsWithTold = true
  host.toldManifest = forgedChunks
  host.contradicted.add(rootfsDigest(forgedChunks))
  const { belief, record } = await mount(host)
  assert.deepEqual([belief.index, host.untold], ['built', [false, true]])
  assert.equal(record.rootfsDigest, rootfsDigest(rootfsOf(imageOf('1'), 'ext4')))
})

for (const [mode, trusted, liar] of [
  ['default', [], member],
  ['with keys listed', [stranger.key], stranger],
] as const)
  test(`tag: the registry's answer stands against a liar and against this host's own past, ${mode}`, async (t) => {
    for (const hasPast of [true, false]) {
      const host = await TestHost.create(t, { trusted })
      if (hasPast) await host.store(await builtBy(own, '1', 'ext4', { statedAtMs: todayMs - 5000 }))
      host.peer.push(await builtBy(liar, '1', 'ext4', { statedAtMs: todayMs + 1000 }))
      host.registry.version = '2'
      const { belief, record, ...found } = await mount(host)
      assert.deepEqual(outcome({ record, ...found }), ['built', 'registry', '2'])
      assert.deepEqual(belief, { name: 'registry', index: 'built' })
      assert.equal(record.nameStatement.key, own.key)
    }
  })

test('a rootfs for a seed is believed as for a mount without the registry, and no name is taken from a host that knows better', async (t) => {
  const seedOf = ({ record }: ImageRootfs): SeedImage => {
    const { reference, platform, format, manifestDigest, rootfsDigest } = record
    return { reference, platform, format, manifestDigest, rootfsDigest }
  }
  const signal = new AbortController().signal
  const told = await builtBy(member, '1')

  const fresh = await TestHost.create(t)
  fresh.peer.push(told)
  assert.deepEqual((await fresh.resolver.findForSeed(seedOf(told), { signal }))?.manifest, told.manifest)
  assert.deepEqual(await fresh.catalog.image(told.record), told.record)
  assert.deepEqual(fresh.considered, [told.record], 'it waits to be verified')
  assert.deepEqual([fresh.registry.requests, fresh.imported], [0, []])

  // The tag is another image here: the rootfs is taken, and the tag stays.
  const knowing = await TestHost.create(t)
  knowing.registry.version = '2'
  const { record } = await mount(knowing)
  knowing.peer.push(told)
  assert.deepEqual((await knowing.resolver.findForSeed(seedOf(told), { signal }))?.manifest, told.manifest)
  assert.deepEqual(await knowing.catalog.image(record), record)
  for (const { id } of tablesOf(told.manifest)) assert.ok(knowing.tracked.has(id))

  const forged = await builtBy(member, '1', 'ext4', { manifest: rootfsOf(imageOf('2'), 'ext4') })
  for (const lie of [await builtBy(stranger, '1'), forged]) {
    const host = await TestHost.create(t)
    host.peer.push(lie)
    assert.equal(await host.resolver.findForSeed(seedOf(lie), { signal }), undefined)
    assert.deepEqual([await host.catalog.images(), await host.catalog.rootfsDigests()], [[], []])
  }
  // Another rootfs of the image than the job names is not taken in its place.
  const other = await builtBy(member, '1', 'ext4', { manifest: { ...told.manifest, metadata: table('other') } })
  assert.equal(await fresh.resolver.findForSeed(seedOf(other), { signal }), undefined)
})

const app = 'host.test/app:1'
const as = (password: string) => withCaller(parseReference(app), { username: 'user', password })

test('a tag that this host or a member has asked for a moment ago is not asked for again, nor is the one that moves to', async (t) => {
  const tagMaxAgeMs = 300_000
  for (const [maker, trusted] of [
    [own, []],
    [member, []],
    [stranger, [stranger.key]],
  ] as const) {
    const host = await TestHost.create(t, { tagMaxAgeMs, trusted })
    const seeded = await builtBy(maker, '1', 'ext4', { statedAtMs: todayMs - tagMaxAgeMs + 1 })
    if (maker === own) await host.store(seeded)
    else host.peer.push(seeded)
    for (let mounts = 0; mounts < 2; mounts++) assert.equal((await mount(host)).resolution, 'last-known')
    assert.equal(host.registry.requests, 0)
    host.todayMs += 1
    assert.equal((await mount(host)).resolution, 'registry')
    assert.equal(host.registry.requests, 1, 'it is as old as it may be')
  }
})

test('who has asked for the tag long ago hears of a member that has asked a moment ago', async (t) => {
  const hour = todayMs - 60 * 60_000
  const cases = [
    // What this host knows is what the member says.
    { maker: member, version: '1', trusted: [], requests: 0, outcome: ['local', 'last-known', '1'] },
    // A member that says something else is not believed by a host that has a past of its own.
    { maker: member, version: '2', trusted: [], requests: 1, outcome: ['local', 'registry', '1'] },
    { maker: stranger, version: '2', trusted: [stranger.key], requests: 0, outcome: ['peer', 'last-known', '2'] },
    // Neither a stranger, nor a member whose key is not listed, keeps a host from asking.
    { maker: stranger, version: '1', trusted: [], requests: 1, outcome: ['local', 'registry', '1'] },
    { maker: member, version: '1', trusted: [stranger.key], requests: 1, outcome: ['local', 'registry', '1'] },
  ]
  for (const { maker, version, trusted, requests, outcome: expected } of cases) {
    const host = await TestHost.create(t, { trusted, tagMaxAgeMs: 300_000 })
    await host.store(await builtBy(own, '1', 'ext4', { statedAtMs: hour }))
    host.peer.push(await builtBy(maker, version, 'ext4', { statedAtMs: todayMs - 1000 }))
    assert.deepEqual(outcome(await mount(host)), expected)
    assert.equal(host.registry.requests, requests)
  }
})

test('a statement from the future keeps no tag for longer than clocks may differ', async (t) => {
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1', 'ext4', { statedAtMs: todayMs + 300_000 }))
  assert.equal((await mount(host)).resolution, 'registry')
})

test('a caller with pull always, or who must have access, mounts only what the registry lets him read, known or not', async (t) => {
  for (const text of [app, `host.test/app@${imageOf('1').manifestDigest}`]) {
    const [right, wrong] = ['right', 'wrong'].map((password) =>
      withCaller(parseReference(text), { username: 'user', password }),
    )
    for (const options of [{ pull: 'always' }, { pull: 'missing', requireAccess: true }] as const) {
      const host = await TestHost.create(t)
      await host.store(await builtBy(own, '1'))
      host.isWhole = true
      host.registry.readers = new Set([callerOf(right!)!.key])
      const by = async (reference: Reference) =>
        await host.resolver.resolveForMount(reference, variant, { ...options, signal })
      assert.equal((await by(right!)).origin, 'local')
      await assert.rejects(by(wrong!), { code: 'denied' })
      // Both at once: neither gets the other's answer.
      const both = await Promise.allSettled([by(right!), by(wrong!), by(right!)])
      assert.deepEqual(
        both.map(({ status }) => status),
        ['fulfilled', 'rejected', 'fulfilled'],
      )
      host.registry.readers.clear()
      host.nowMs = 60_000
      await assert.rejects(by(right!), { code: 'denied' }, 'a right that was taken away ends in a minute')
      host.registry.fails = unavailable
      await assert.rejects(by(wrong!), { code: 'unavailable' }, 'a registry that is silent lets nobody in')
    }
  }
})

test('access is asked for with one request a minute for each caller and image', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  const by = async (password: string) =>
    await host.resolver.resolveForMount(as(password), variant, { pull: 'missing', requireAccess: true, signal })
  for (const requests of [1, 1, 1]) {
    await by('a')
    assert.equal(host.registry.requests, requests)
  }
  await by('b')
  assert.equal(host.registry.requests, 2)
  host.nowMs = 60_000
  await by('a')
  assert.equal(host.registry.requests, 3)
})

test('the last known image is not mounted for a caller whom the registry refuses', async (t) => {
  for (const code of ['denied', 'missing'] as const) {
    const host = await TestHost.create(t)
    await host.store(await builtBy(own, '1'))
    host.registry.fails = async () => await Promise.reject(new P2pfsError(code, 'no'))
    assert.equal((await mount(host)).resolution, 'last-known')
    await assert.rejects(host.resolver.resolveForMount(as('a'), variant, auto), { code })
    await assert.rejects(host.resolver.resolveForSeed(as('a'), variant, { signal }), { code })
  }
})

test('an image that was seeded is mounted by its digest from the region, and nothing is asked for', async (t) => {
  const host = await TestHost.create(t)
  const name = await host.resolver.nameByDigest(await host.resolver.resolveForSeed(reference, variant, { signal }))
  assert.equal(name, `host.test/app@${imageOf('1').manifestDigest}`)
  const record = await host.catalog.image({ ...variant, reference: name })
  const other = await TestHost.create(t)
  other.members = [own.key]
  other.peer.push({ record: record!, manifest: rootfsOf(imageOf('1'), 'ext4') })
  const requests = other.registry.requests
  const mounted = await other.resolver.resolveForMount(parseReference(name), variant, auto)
  assert.deepEqual([mounted.resolution, mounted.belief.name], ['digest', 'digest'])
  assert.equal(other.registry.requests, requests)
})
