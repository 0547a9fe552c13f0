import type { TestContext } from 'node:test'
import { attest, type Signer } from '../../../protocol/attestation.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import type { RegistryWord } from '../../../protocol/messages/registry-word.ts'
import { stateName } from '../../../protocol/name-statement.ts'
import { rootfsDigest, type RootfsFormat, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { createLog } from '../../../node/base/log.ts'
import { ImageResolver, type ImageResolverParts } from '../../../node/images/resolver.ts'
import { RunningImports } from '../../../node/images/running-imports.ts'
import type { ImageRootfs } from '../../../node/model/image.ts'
import type { PublishedRootfs } from '../../../node/publish/published-images.ts'
import { IndexTrust } from '../../../node/publish/index-trust.ts'
import type { ResolvedImage } from '../../../node/registry/image-source.ts'
import { callerOf, parseReference, type Reference } from '../../../node/registry/reference.ts'
import type { Catalog } from '../../../node/store/catalog.ts'
import { noLies } from '../../support/no-lies.ts'
import { testKey } from '../../support/test-key.ts'
import { openCatalog } from '../../support/stores.ts'

export const { signal } = new AbortController()
export const [own, member, stranger, other] = [await testKey(1), await testKey(2), await testKey(3), await testKey(4)]
export const reference = parseReference('host.test/app:1')
export const variant = { platform: 'linux/amd64', format: 'ext4' } as const
export const auto = { pull: 'newer', signal } as const
/** The clock of the tests (ms since 1970). */
export const todayMs = 1_800_000_000_000

export const digest = (text: string): Digest => digestOf(Buffer.from(text))
export const table = (text: string): ChunkTable => new ChunkTable([4096], digestToBytes(digest(text)))

/** An image of one layer, which the version determines, as its registry describes it. */
export function imageOf(version: string): ResolvedImage {
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

export function rootfsOf({ config, layers }: ResolvedImage, format: RootfsFormat): RootfsManifest {
  return {
    format,
    metadata: table(`metadata ${format} ${config}`),
    layers: layers.map(({ diffId }) => ({ diffId, chunks: table(diffId) })),
    config,
  }
}

/** The image as `maker` has built it. @param how `statedBy`: who says that the tag stands for it, by default the maker */
export async function builtBy(
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
export class FakeRegistry {
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

export const never = async (signal: AbortSignal): Promise<never> =>
  await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
export const unavailable = async (): Promise<never> =>
  await Promise.reject(new P2pfsError('unavailable', 'connection refused'))

/** A host with one peer, and a registry. */
export class TestHost {
  readonly registry = new FakeRegistry()
  /** The images that the members have. */
  readonly peer: ImageRootfs[] = []
  /** The words of members about registries, and the registries that they were asked about. */
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
  /** The rootfs that those make; by default that of the layers. */
  toldManifest: RootfsManifest | undefined
  readonly contradicted = new Set<Digest>()
  /** Whether somebody waited for the last import. */
  isAwaited: boolean | undefined
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
          importImage: async (_reference, image, format, { untold = false, urgency }) => {
            this.imported.push(`${image.manifestDigest} as ${format}`)
            this.untold.push(untold)
            this.isAwaited = urgency?.isUrgent
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

export const outcome = ({
  origin,
  resolution,
  record,
}: ImageRootfs & { origin: string; resolution: string }): string[] => [
  origin,
  resolution,
  ['1', '2'].find((version) => imageOf(version).manifestDigest === record.manifestDigest) ?? 'other',
]

/** The record of image 1, signed by a member for a rootfs of other layers. */
export async function forgedLayers(): Promise<ImageRootfs> {
  const { record } = await builtBy(member, '1')
  const manifest = { ...rootfsOf(imageOf('2'), 'ext4'), config: imageOf('1').config }
  const forged = { ...record, rootfsDigest: rootfsDigest(manifest) }
  return { record: { ...forged, attestation: await attest(forged, member) }, manifest }
}

export const mount = async (host: TestHost, options: { pull: 'newer' | 'missing'; signal: AbortSignal } = auto) =>
  await host.resolver.resolveForMount(reference, variant, options)
