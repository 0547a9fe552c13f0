import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestBytes, digestHex, digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { rootfsDigest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { silentLog, type Log, type LogLevel } from '../../../node/base/log.ts'
import type {
  ChunkRequest,
  FetchedChunk,
  FetchPriority,
  RemoteSource,
  Source,
} from '../../../node/model/chunk-request.ts'
import type { Inquiry } from '../../../node/model/inquiry.ts'
import { nodeIdOf } from '../../../node/mount/fuse/block-image.ts'
import type { FuseDriver, ReadHandler } from '../../../node/mount/fuse/driver.ts'
import type { MountSpec, Place, PlacedMount, Placement, Reads } from '../../../node/mount/placement/placement.ts'
import type { ArrivalListener } from '../../../node/store/inventory.ts'
import type { MountRecord } from '../../../node/store/mount-record.ts'

export const chunkBytes = 4096

/** The bytes of chunk `number` of all test images. */
export const chunkOf = (number: number): Buffer => Buffer.alloc(chunkBytes, `chunk ${number} `)

/** A rootfs whose chunks are those with the given numbers; the first is its metadata. */
export function rootfsOf(...numbers: number[]): { manifest: RootfsManifest; digest: Digest } {
  const tableOf = (part: number[]): ChunkTable =>
    new ChunkTable(
      part.map(() => chunkBytes),
      Buffer.concat(
        part.map((number) => digestToBytes(digestOf(chunkOf(number)))),
        part.length * digestBytes,
      ),
    )
  const [first = 0, ...others] = numbers
  const manifest = {
    format: 'erofs',
    metadata: tableOf([first]),
    layers: [{ diffId: digestOf(Buffer.from(numbers.join())), chunks: tableOf(others) }],
    config: '{}',
  } as const
  return { manifest, digest: rootfsDigest(manifest) }
}

export function recordOf(rootfs: Digest, directory: string, options: Partial<MountRecord> = {}): MountRecord {
  return {
    id: `id-of${directory.replaceAll('/', '-')}`,
    directory,
    reference: 'local:test',
    platform: 'linux/amd64',
    format: 'erofs',
    rootfsDigest: rootfs,
    manifestDigest: rootfs,
    origin: 'built',
    resolution: 'last-known',
    as: 'drive',
    writable: false,
    mountedAt: '2026-01-01T00:00:00.000Z',
    ...options,
  }
}

/** Mount records, and the rootfs manifests of a catalog, in memory. */
export class FakeCatalog {
  readonly records = new Map<string, MountRecord>()
  readonly manifests = new Map<Digest, RootfsManifest>()
  malformed: string[] = []

  async list(onMalformed: (key: string, error: unknown) => void): Promise<MountRecord[]> {
    for (const key of this.malformed) onMalformed(key, new P2pfsError('invalid', 'malformed'))
    return [...this.records.values()]
  }

  async put(record: MountRecord): Promise<void> {
    this.records.set(record.directory, record)
  }

  async delete({ directory }: MountRecord): Promise<void> {
    this.records.delete(directory)
  }

  async rootfsDigests(): Promise<Digest[]> {
    return [...this.manifests.keys()]
  }

  async hasRootfs(digest: Digest): Promise<boolean> {
    return this.manifests.has(digest)
  }

  async rootfs(digest: Digest): Promise<RootfsManifest | undefined> {
    return this.manifests.get(digest)
  }
}

/** A driver whose reads are calls of its handler. */
export class FakeDriver implements Pick<FuseDriver, 'start' | 'add' | 'setOwners' | 'remove'> {
  /** Images that can be looked up. */
  readonly images = new Set<string>()
  /** Users who may open the image of each name, besides root. */
  readonly owners = new Map<string, readonly number[]>()
  /** Whether mounts in other namespaces have all images. */
  heldElsewhere = false
  #handler: ReadHandler | undefined

  async start(handler: ReadHandler): Promise<void> {
    this.#handler = handler
  }

  async add(image: { name: string }): Promise<void> {
    this.images.add(image.name)
  }

  setOwners(name: string, uids: readonly number[]): void {
    this.owners.set(name, uids)
  }

  async remove(name: string): Promise<boolean> {
    this.images.delete(name)
    return !this.heldElsewhere
  }

  /** The last mount in another namespace has ended. */
  drop(rootfs: Digest): void {
    this.#handler!.dropped(digestHex(rootfs))
  }

  /** The kernel uses an image that an earlier daemon has served. */
  async use(rootfs: Digest): Promise<string | undefined> {
    return (await this.#handler!.reopen(nodeIdOf(rootfs)))?.name
  }

  async read(rootfs: Digest, chunk: number): Promise<Uint8Array> {
    return await this.#handler!.miss(digestHex(rootfs), chunk, { signal: new AbortController().signal })
  }
}

/** A host's directories, without any mounts of the kernel. */
export class FakePlacement implements Placement {
  async end(): Promise<void> {
    await Promise.resolve()
  }

  /** The mounts, by their real directories. */
  readonly placed = new Map<string, { spec: MountSpec; identity: string }>()
  /** Symbolic links, and where they lead. */
  readonly links = new Map<string, string>()
  readonly trees = new Set<string>()
  /** Ids of mounts that are in use. */
  readonly busy = new Set<string>()
  kept: string[] | undefined
  failure: P2pfsError | undefined
  /** Answers the reads of all mounts. */
  answers: Reads = 'fuse'
  /** Resolves when a `place` may go on. */
  gate: Promise<void> = Promise.resolve()
  /** The identity of the next mount. */
  next = 0

  /** Moves a directory, with what is mounted on it. */
  rename(from: string, to: string): void {
    this.placed.set(to, this.placed.get(from)!)
    this.placed.delete(from)
  }

  async locate(directory: string): Promise<Place> {
    const path = this.links.get(directory) ?? directory
    return { path, identity: this.placed.get(path)?.identity }
  }

  async standing(specs: readonly MountSpec[]): Promise<Map<string, string>> {
    const found = [...this.placed.values()].filter(({ identity }) => specs.some((spec) => spec.identity === identity))
    return new Map(found.map(({ spec, identity }) => [spec.id, identity]))
  }

  async reads(specs: readonly MountSpec[]): Promise<Map<string, Reads>> {
    return new Map(specs.map(({ id }) => [id, this.answers]))
  }

  async place(spec: MountSpec): Promise<PlacedMount> {
    await this.gate
    if (this.failure !== undefined) throw this.failure
    const identity = `mount ${this.next++}`
    this.placed.set((await this.locate(spec.directory)).path, { spec, identity })
    if (spec.as === 'tree') this.trees.add(spec.rootfs)
    return { placed: { rootfs: spec.directory }, reads: this.answers, identity }
  }

  async reset(spec: MountSpec): Promise<PlacedMount> {
    const directory = this.#take(spec) ?? spec.directory
    const { identity } = await this.place({ ...spec, directory })
    return { placed: { rootfs: spec.directory }, reads: this.answers, identity }
  }

  async remove(spec: MountSpec): Promise<void> {
    this.#take(spec)
  }

  async release(rootfs: string): Promise<boolean> {
    this.trees.delete(rootfs)
    return true
  }

  async tidy(specs: readonly MountSpec[]): Promise<void> {
    this.kept = specs.map(({ directory }) => directory)
  }

  /** Unmounts. @returns the directory */
  #take({ id, identity }: MountSpec): string | undefined {
    if (this.busy.has(id)) throw new P2pfsError('conflict', `${id} is in use`)
    const directory = [...this.placed.keys()].find((path) => this.placed.get(path)?.identity === identity)
    if (directory !== undefined) this.placed.delete(directory)
    return directory
  }
}

/** Fetches the chunks of test images; `here` are those that have come. */
export class FakeFetcher {
  arrived: ArrivalListener = () => undefined

  onArrival(listener: ArrivalListener): Disposable {
    this.arrived = listener
    return { [Symbol.dispose]: () => undefined }
  }

  readonly asked: { request: ChunkRequest; priority: FetchPriority }[] = []
  readonly here = new Set<Digest>()
  answer: (request: ChunkRequest, signal: AbortSignal) => Promise<Uint8Array> = async ({ digest }) =>
    await Promise.resolve(bytesOf(digest))

  async fetch(
    request: ChunkRequest,
    { signal, priority }: { signal: AbortSignal; priority: FetchPriority },
  ): Promise<FetchedChunk> {
    this.asked.push({ request, priority })
    const bytes = await this.answer(request, signal)
    this.here.add(request.digest)
    return { bytes, source: 'peer' }
  }

  /** The sources that are asked, as a fetcher tells. */
  asking: Inquiry | undefined

  inquiry(): Inquiry | undefined {
    return this.asking
  }

  async fetchToStore(
    request: ChunkRequest,
    options: { signal: AbortSignal; priority: FetchPriority },
  ): Promise<Source> {
    return (await this.fetch(request, options)).source
  }

  /** From now on nothing comes. */
  neverAnswers(): void {
    this.answer = async (_request, signal) =>
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
      })
  }

  has(digest: Digest): boolean {
    return this.here.has(digest)
  }

  sourcesOf(): { index: number; source: RemoteSource }[] {
    return []
  }
}

function bytesOf(digest: Digest): Buffer {
  for (let number = 0; number < 1000; number++) if (digestOf(chunkOf(number)) === digest) return chunkOf(number)
  throw new TypeError('not a chunk of a test image')
}

/** Boots that do nothing but say which run. */
export class FakeBoots {
  readonly running = new Set<Digest>()

  start({ digest }: { digest: Digest }): void {
    this.running.add(digest)
  }

  status(): undefined {
    return undefined
  }

  async end(digest: Digest): Promise<void> {
    this.running.delete(digest)
  }

  async endAll(): Promise<void> {
    this.running.clear()
  }
}

/** A log that keeps the messages of the given level. */
export function keepingLog(level: LogLevel): { log: Log; messages: string[] } {
  const messages: string[] = []
  return { log: { ...silentLog, [level]: (message: string) => void messages.push(message) }, messages }
}
