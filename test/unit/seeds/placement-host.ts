import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { PlaceRequest } from '../../../protocol/messages/seed.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { SeedProgress } from '../../../protocol/seed-job.ts'
import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { orAbort } from '../../../node/base/single-flight.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { ImageRootfs } from '../../../node/model/image.ts'
import type { FoundProfile } from '../../../node/boot/profiles.ts'
import { HotRoom } from '../../../node/seeds/hot-room.ts'
import { chunkRequests, tablesOf } from '../../../node/model/rootfs-chunks.ts'
import { Pins } from '../../../node/seeds/pins.ts'
import { Placements } from '../../../node/seeds/placements.ts'
import { seedLimits, type SeedLimits } from '../../../node/seeds/seed-limits.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { FakeCatalog, image, makeTable } from './seed-fakes.ts'

export const gibibyte = 1024 ** 3
export const [metadata, data] = [makeTable('metadata', 2), makeTable('data', 6)]
const manifest = { metadata, layers: [{ chunks: data }] } as unknown as RootfsManifest
export const request: PlaceRequest = { ...image, job: '0'.repeat(32), extent: 'full', untilMs: 1_000_000 }
export const refused = (code: ErrorCode) => (error: unknown) => isP2pfsError(error, code)

/** A host, `own`, whose chunks are names in a set. */
export class Host {
  readonly chunks = new Set<Digest>()
  /** Here, but not what their digests say: found when they are hashed. */
  readonly damaged = new Set<Digest>()
  /** The sources of chunks: members alone, or also the registry. */
  readonly fetched: string[] = []
  readonly catalog = new FakeCatalog()
  readonly clock = new FakeClock()
  readonly hotBandwidth = new Bandwidth({ clock: this.clock, nowUs: () => BigInt(Math.round(this.clock.now() * 1000)) })
  readonly pins: Pins
  readonly placements: Placements
  readonly hotRoom: HotRoom
  readonly mounted = new Set<Digest>()
  /** The rootfs of this host. */
  readonly rootfs = new Map<Digest, RootfsManifest>()
  freeBytes = 500 * gibibyte
  sizeBytes = 1000 * gibibyte
  isNamed = false
  found: ImageRootfs | undefined = { manifest } as ImageRootfs
  deliver: () => Promise<void> = async () => await Promise.resolve()
  profile: FoundProfile | undefined
  hashed = 0
  lookups = 0

  constructor({
    isForPeers = true,
    limits = {},
    takesHot = true,
    hotDiskBytes = gibibyte,
  }: { isForPeers?: boolean; limits?: Partial<SeedLimits>; takesHot?: boolean; hotDiskBytes?: number } = {}) {
    const all = { ...seedLimits, ...limits }
    this.pins = new Pins({ own: 'own', catalog: this.catalog }, all)
    this.hotRoom = new HotRoom(
      {
        pins: this.pins,
        catalog: {
          rootfs: async (digest) => await Promise.resolve(this.rootfs.get(digest)),
          rootfsDigests: async () => await Promise.resolve([...this.rootfs.keys()]),
        },
        inventory: {
          tablesWith: (digest) =>
            [...this.rootfs.values()]
              .flatMap(tablesOf)
              .filter((table) => [...chunkRequests([table])].some((chunk) => chunk.digest === digest))
              .map(({ id }) => id),
          discard: async (digest) => void (await Promise.resolve(this.chunks.delete(digest))),
        },
        isMounted: (digest) => this.mounted.has(digest),
        log: silentLog,
      },
      { diskBytes: hotDiskBytes },
    )
    const fetcher = (name: string) => ({
      fetchToStore: async ({ digest }: { digest: Digest }, { signal }: { signal: AbortSignal }) => {
        if (this.chunks.has(digest)) return 'local' as const
        await orAbort(this.deliver(), signal)
        this.fetched.push(name)
        this.chunks.add(digest)
        return 'peer' as const
      },
      settled: async () => await Promise.resolve(),
    })
    this.placements = new Placements(
      {
        own: 'own',
        resolver: {
          findForSeed: async () => {
            this.lookups++
            return await Promise.resolve(this.found)
          },
        },
        profiles: { find: async () => await Promise.resolve(this.profile) },
        inventory: {
          has: (digest) => this.chunks.has(digest),
          scrub: async (digest) => {
            this.hashed++
            if (!this.damaged.delete(digest)) return await Promise.resolve(4096)
            this.chunks.delete(digest)
            return 0
          },
          localBytes: () => this.chunks.size * 4096,
        },
        pins: this.pins,
        hotRoom: this.hotRoom,
        fetcher: fetcher('any'),
        regionFetcher: fetcher('members'),
        readsFor: async () => await Promise.resolve(this.isNamed),
        room: async () => await Promise.resolve({ freeBytes: this.freeBytes, sizeBytes: this.sizeBytes }),
        hotBandwidth: this.hotBandwidth,
        log: silentLog,
      },
      { isForPeers, takesHot, limits: all, clock: this.clock },
    )
  }

  async place(
    changes: Partial<PlaceRequest> = {},
    peer = 'x',
    signal = new AbortController().signal,
  ): Promise<SeedProgress> {
    return await this.placements.place({ ...request, ...changes }, { peer, signal, onProgress: () => undefined })
  }
}

/** A job of its own for an image with `mounts` mounts. */
export const hotJob = (n: number, mounts: number): Partial<PlaceRequest> => ({
  job: `${n}`.padStart(32, '0'),
  demand: { mounts, hosts: 2 },
})
