import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { Bitmap } from '../../../protocol/bitmap.ts'
import type { BootProfile } from '../../../protocol/boot-profile.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { BulkMode } from '../../../protocol/messages/bulk.ts'
import type { RegistryWord } from '../../../protocol/messages/registry-word.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { ChunkFiles } from '../../../node/peers/bulk/chunk-files.ts'
import { WriteEpochs } from '../../../node/base/write-epochs.ts'
import { PeerNetwork } from '../../../node/peers/network.ts'
import type { ServedData } from '../../../node/peers/served-data.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** A segment of `count` chunks of 128 KiB, the same in every test. */
export function makeSegment(count: number): { table: ChunkTable; chunks: Buffer[] } {
  const random = createRandom(11)
  const chunks = Array.from({ length: count }, () => {
    const bytes = Buffer.alloc(128 * 1024)
    random.bytes(64).copy(bytes)
    return bytes
  })
  const digests = Buffer.concat(chunks.map((bytes) => digestToBytes(digestOf(bytes))))
  return {
    table: new ChunkTable(
      chunks.map(({ length }) => length),
      digests,
    ),
    chunks,
  }
}

/** A real peer whose store is a map. */
export class TestPeer {
  readonly chunks = new Map<Digest, Uint8Array>()
  /** Answers all wants in place of the chunks, when it resolves. */
  stall: Promise<Uint8Array> | undefined
  readonly images = new Map<string, ImageRecord>()
  readonly profiles = new Map<Digest, BootProfile>()
  readonly objects = new Map<Digest, Uint8Array>()
  readonly blobs = new Map<Digest, Promise<Uint8Array>>()
  readonly held = new Map<Digest, Bitmap>()
  /** Manifests of the images that it says it is importing. */
  readonly importing = new Set<Digest>()
  /** Its words about registries, by their keys. */
  readonly registryWords = new Map<Digest, RegistryWord>()
  holders: readonly string[] = []
  imageRecord: ServedData['imageRecord'] = async ({ reference }) => await Promise.resolve(this.images.get(reference))
  relayedChunk: ServedData['relayedChunk'] = async () => await Promise.resolve(undefined)
  importedImage: ServedData['importedImage'] = async () =>
    await Promise.reject(new P2pfsError('unsupported', 'this peer imports nothing'))
  seeds: ServedData['seeds'] = {
    placed: async () => await Promise.reject(new P2pfsError('denied', 'this peer takes no seeds')),
    keptJob: async (job) => await Promise.resolve(job),
    released: async () => await Promise.resolve(),
    mounted: () => undefined,
    jobs: () => [],
  }
  /** The chunks that its bulk transfers have brought. */
  readonly adopted: Digest[] = []
  readonly suspected: Digest[] = []
  readonly unwritten: Error[] = []
  readonly files: { -readonly [Name in keyof ChunkFiles]: ChunkFiles[Name] }
  readonly network: PeerNetwork
  /** Limits on what it gives and takes; none are set. */
  readonly bandwidths: Record<'upload' | 'download', Bandwidth>

  private constructor(network: PeerNetwork, directory: string, bandwidths: TestPeer['bandwidths']) {
    this.network = network
    this.bandwidths = bandwidths
    this.files = {
      writing: { directory, epochs: WriteEpochs.startingAt(1).shared },
      isFull: false,
      adopt: async (chunks) => {
        this.adopted.push(...chunks.map(({ digest }) => digest))
        await Promise.resolve()
      },
      failed: (error) => void this.unwritten.push(error),
      suspect: (digest) => void this.suspected.push(digest),
    }
  }

  static async start(
    context: TestContext,
    name: string,
    {
      bootstrap = [],
      region = 'test',
      directory = temporaryDirectory(context),
      regionKeyFile,
      memberFile,
      guestKeyFile,
      bulk,
      bulkListen,
      fullMesh,
    }: {
      bootstrap?: string[]
      region?: string
      directory?: string
      regionKeyFile?: string
      memberFile?: string
      guestKeyFile?: string
      /** Without it this peer has no bulk connections. */
      bulk?: BulkMode
      bulkListen?: string
      /** Members of a region that is connected each to each, at most. */
      fullMesh?: number
    } = {},
  ): Promise<TestPeer> {
    const bandwidths = { upload: new Bandwidth(), download: new Bandwidth() }
    const network = await PeerNetwork.open(
      { log: silentLog, ...bandwidths },
      {
        region,
        name,
        listen: ['/ip4/127.0.0.1/tcp/0'],
        bootstrap,
        identityFile: join(directory, `${name}.key`),
        regionKeyFile,
        memberFile,
        guestKeyFile,
        bulk: bulk === undefined ? undefined : { mode: bulk, listen: bulkListen },
        ...(fullMesh !== undefined && { fullMesh }),
      },
    )
    context.after(async () => await network.stop())
    const peer = new TestPeer(network, join(directory, `${name}-chunks`), bandwidths)
    makeChunkDirectory(peer.files.writing.directory)
    const served: ServedData = {
      chunk: async (digest) => await (peer.stall ?? peer.chunks.get(digest)),
      relayedChunk: async (digest, options) => await peer.relayedChunk(digest, options),
      holders: () => peer.holders,
      imageRecord: async (name) => await peer.imageRecord(name),
      rootfsManifest: async (digest) => peer.objects.get(digest),
      sharedBlob: (digest) => peer.blobs.get(digest),
      layerIndex: async (diffId) => peer.objects.get(diffId),
      blobMap: async (digest) => peer.objects.get(digest),
      bootProfile: async ({ rootfs }) => peer.profiles.get(rootfs),
      isImporting: (digest) => peer.importing.has(digest),
      registryWord: (key) => peer.registryWords.get(key),
      get seeds() {
        return peer.seeds
      },
      importedImage: async (request, options) => await peer.importedImage(request, options),
    }
    await network.start(served, peer.files)
    return peer
  }

  get address(): string {
    return this.network.multiaddrs()[0]!
  }

  /** Begins to track the segment: it asks who holds it. */
  track({ table }: ReturnType<typeof makeSegment>): void {
    const held = this.held.get(table.id) ?? new Bitmap(table.count)
    this.held.set(table.id, held)
    this.network.availability.announce(table.id, held)
  }

  /** Puts chunks `indexes` of the segment into the store, and announces them. */
  hold(segment: ReturnType<typeof makeSegment>, indexes: number[]): void {
    const { table, chunks } = segment
    const held = this.held.get(table.id)
    const bits = held ?? new Bitmap(table.count)
    for (const index of indexes) {
      this.chunks.set(table.digestAt(index), chunks[index]!)
      writeFileSync(chunkFile(this.files.writing.directory, table.digestAt(index)), chunks[index]!)
      bits.set(index)
    }
    this.held.set(table.id, bits)
    if (held === undefined) this.network.availability.announce(table.id, bits)
    else this.network.availability.announceChunks(table.id, indexes)
  }
}

/** The directory of a chunk store, as the store makes it. */
export function makeChunkDirectory(directory: string): void {
  mkdirSync(join(directory, 'incoming'), { recursive: true })
  for (let i = 0; i < 256; i++) mkdirSync(join(directory, i.toString(16).padStart(2, '0')), { recursive: true })
}

/** Waits for what peers bring about; the deadline is for a busy machine. */
export async function until(what: string, condition: () => boolean, { timeoutMs = 60_000 } = {}): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not in time: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
