import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { PlaceRequest } from '../../../protocol/messages/seed.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { SeedProgress } from '../../../protocol/seed-job.ts'
import { orAbort } from '../../../node/base/single-flight.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { ImageRootfs } from '../../../node/model/image.ts'
import type { FoundProfile } from '../../../node/boot/profiles.ts'
import { Pins } from '../../../node/seeds/pins.ts'
import { Placements, type HotBudget } from '../../../node/seeds/placements.ts'
import { seedLimits, type SeedLimits } from '../../../node/seeds/seed-limits.ts'
import { FakeClock, settled } from '../../support/fake-clock.ts'
import { FakeCatalog, image, makeTable } from './seed-fakes.ts'

const gibibyte = 1024 ** 3
const [metadata, data] = [makeTable('metadata', 2), makeTable('data', 6)]
const manifest = { metadata, layers: [{ chunks: data }] } as unknown as RootfsManifest
const request: PlaceRequest = { ...image, job: '0'.repeat(32), extent: 'full', untilMs: 1_000_000 }
const refused = (code: ErrorCode) => (error: unknown) => isP2pfsError(error, code)

/** A host, `own`, whose chunks are names in a set. */
class Host {
  readonly chunks = new Set<Digest>()
  /** Here, but not what their digests say: found when they are hashed. */
  readonly damaged = new Set<Digest>()
  /** Who delivered chunks: members alone, or also the registry. */
  readonly fetched: string[] = []
  readonly catalog = new FakeCatalog()
  readonly clock = new FakeClock()
  readonly pins: Pins
  readonly placements: Placements
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
    hot = { isOn: true, diskBytes: gibibyte, bytesPerSecond: gibibyte },
  }: { isForPeers?: boolean; limits?: Partial<SeedLimits>; hot?: HotBudget } = {}) {
    const all = { ...seedLimits, ...limits }
    this.pins = new Pins({ own: 'own', catalog: this.catalog }, all)
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
        fetcher: fetcher('any'),
        regionFetcher: fetcher('members'),
        readsFor: async () => await Promise.resolve(this.isNamed),
        room: async () => await Promise.resolve({ freeBytes: this.freeBytes, sizeBytes: this.sizeBytes }),
        log: silentLog,
      },
      { isForPeers, hot, limits: all, clock: this.clock },
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

test('a placement ends when every chunk is here and hashed: what was here is read, and damaged chunks come anew', async () => {
  const host = new Host()
  for (const i of [0, 1, 2]) host.chunks.add(data.digestAt(i))
  host.damaged.add(data.digestAt(1))
  assert.deepEqual(await host.place(), { held: 8, verified: 8, total: 8 })
  assert.equal(host.fetched.length, 6)
  assert.equal(host.hashed, 3)
  // Asked again, it knows.
  await host.place()
  assert.equal(host.hashed, 3)
  // A chunk that the disk has lost meanwhile comes again.
  host.chunks.delete(data.digestAt(5))
  assert.deepEqual(await host.place(), { held: 8, verified: 8, total: 8 })
  assert.equal(host.fetched.length, 7)
})

test('hot, only metadata and boot profile are placed', async () => {
  const host = new Host()
  assert.deepEqual(await host.place({ extent: 'hot' }), { held: 2, verified: 2, total: 2 })
  const chunks = [data.digestAt(4), metadata.digestAt(0), makeTable('other', 1).digestAt(0)]
  host.profile = { profile: { chunks }, source: 'peer' } as unknown as FoundProfile
  assert.deepEqual(await host.place({ extent: 'hot' }), { held: 3, verified: 3, total: 3 })
  assert.ok(host.chunks.has(data.digestAt(4)))
  assert.deepEqual(await host.place({ extent: 'full' }), { held: 8, verified: 8, total: 8 })
  assert.equal(host.pins.list()[0]!.extent, 'full')
})

test('for a member the registry is read only where the operator has named it, for the operator always', async () => {
  for (const [peer, isNamed, source] of [
    ['x', false, 'members'],
    ['x', true, 'any'],
    ['own', false, 'any'],
  ] as const) {
    const host = new Host()
    host.isNamed = isNamed
    await host.place({}, peer)
    assert.deepEqual([...new Set(host.fetched)], [source])
  }
})

test('seeds of members are refused where the operator wants none; his own are not', async () => {
  const host = new Host({ isForPeers: false })
  await assert.rejects(host.place(), refused('denied'))
  assert.equal(host.fetched.length, 0)
  await host.place({}, 'own')
})

test('an image that this host believes nobody about is not placed, and not pinned', async () => {
  const host = new Host()
  host.found = undefined
  await assert.rejects(host.place(), refused('missing'))
  assert.deepEqual(host.pins.list(), [])
})

test('seeds of members cannot fill the disk: not what is free, not more than their share, not while one runs', async () => {
  const size = 8 * 4096
  const floor = { freeShare: 0.1, freeBytes: gibibyte }
  const tight = new Host({ limits: floor })
  tight.freeBytes = gibibyte + size - 1
  await assert.rejects(tight.place(), refused('busy'))
  assert.deepEqual([tight.fetched, tight.pins.list()], [[], []])
  assert.equal(tight.lookups, 1)
  tight.freeBytes = gibibyte + size
  await tight.place()
  // Nor is anything looked up, and kept, where there is no room.
  tight.freeBytes = gibibyte - 1
  await assert.rejects(tight.place(), refused('busy'))
  assert.equal(tight.lookups, 2)

  // One may have a quarter of the disk pinned, all together a half; 32 KiB are an eighth of it.
  const shared = new Host({ limits: { freeShare: 0 } })
  shared.sizeBytes = 8 * size
  const job = (n: number): Partial<PlaceRequest> => ({ job: `${n}`.padStart(32, '0') })
  await shared.place(job(1), 'x')
  await shared.place(job(2), 'x')
  await assert.rejects(shared.place(job(3), 'x'), refused('busy'))
  await shared.place(job(4), 'y')
  await shared.place(job(5), 'y')
  await assert.rejects(shared.place(job(6), 'z'), refused('busy'))
  await shared.place(job(7), 'own')

  // Others fill the disk while it comes.
  const filling = new Host({ limits: floor })
  filling.deliver = async () => await new Promise(() => undefined)
  const placed = filling.place()
  await settled()
  filling.freeBytes = gibibyte - 1
  const failed = assert.rejects(placed, refused('busy'))
  await filling.clock.pass(seedLimits.roomIntervalMs)
  await failed
  assert.deepEqual([filling.fetched, filling.pins.list()], [[], []])
})

test('members wait for each other’s seeds, and the operator for none; requests are bounded', async () => {
  const host = new Host({ limits: { placementsAtOnce: 2, waiting: 5, waitingPerPeer: 2, requestsPerMinutePerPeer: 4 } })
  const end = Promise.withResolvers<void>()
  let running = 0
  host.deliver = async () => {
    running++
    await end.promise
  }
  const job = (n: number): Partial<PlaceRequest> => ({ job: `${n}`.padStart(32, '0') })
  const all = [host.place(job(1), 'x'), host.place(job(2), 'x')]
  await assert.rejects(host.place(job(3), 'x'), refused('busy'))
  await settled()
  const ofOne = running
  all.push(host.place(job(4), 'y'), host.place(job(5), 'z'))
  await settled()
  // x has one at a time, z waits for x or y.
  assert.equal(running, 2 * ofOne)
  all.push(host.place(job(6), 'own'))
  await settled()
  assert.equal(running, 3 * ofOne)
  all.push(host.place(job(7), 'v'))
  await assert.rejects(host.place(job(8), 'w'), refused('busy'))
  end.resolve()
  await Promise.all(all)
  await host.place(job(9), 'x')
  await assert.rejects(host.place(job(9), 'x'), refused('busy'))
})

test('an image for a member that does not come is given up, and is not pinned', async () => {
  const host = new Host({ limits: { stallMs: 10_000, roomIntervalMs: 1_000 } })
  host.deliver = async () => await new Promise(() => undefined)
  const placed = host.place()
  const failed = assert.rejects(placed, refused('unavailable'))
  await host.clock.pass(12_000)
  await failed
  assert.deepEqual(host.pins.list(), [])
})

test('a placement waits for chunks that no member has yet, as long as others come', async () => {
  const host = new Host()
  let asked = 0
  host.deliver = async () => {
    // Of the first eight requests one is answered; the others' holders come later.
    if (asked++ < 1 || host.clock.now() >= startedAtMs + 8_000) return
    throw new P2pfsError('missing', 'no source delivers the chunk')
  }
  const startedAtMs = host.clock.now()
  const placed = host.place()
  await host.clock.pass(9_000)
  assert.deepEqual(await placed, { held: 8, verified: 8, total: 8 })
})

test('pins outlive the process and end with their time; a member ends no pin of the operator', async () => {
  const host = new Host()
  await host.place({}, 'own')
  await host.place({ untilMs: 5 }, 'x')
  await host.place({ job: '1'.repeat(32), untilMs: 500 }, 'x')
  const pins = new Pins({ own: 'own', catalog: host.catalog })
  await pins.open()
  await pins.release(request.job, 'x')
  assert.deepEqual(
    pins.list().map(({ peer, untilMs }) => [peer, untilMs]),
    [
      ['own', 1_000_000],
      ['x', 500],
    ],
  )
  await pins.expire(500)
  await pins.release(request.job, 'own')
  assert.deepEqual([pins.list(), host.catalog.records.size], [[], 0])
})

/** Of `mounts` mounts, in a job of its own. */
const hotJob = (n: number, mounts: number): Partial<PlaceRequest> => ({
  job: `${n}`.padStart(32, '0'),
  demand: { mounts, hosts: 2 },
})

test('images that are mounted often stay within their budget: the lightest makes room, and heavier ones do not', async () => {
  const size = 8 * 4096
  const host = new Host({ hot: { isOn: true, diskBytes: 2 * size, bytesPerSecond: gibibyte } })
  await host.place(hotJob(1, 5))
  // From this host's own order, too: no operator has given it.
  await host.place(hotJob(2, 4), 'own')
  assert.equal(host.pins.hotBytes, 2 * size)
  await assert.rejects(host.place(hotJob(3, 4)), refused('busy'))
  await host.place(hotJob(3, 6))
  assert.deepEqual(
    host.pins.list().map(({ demand }) => demand?.mounts),
    [5, 6],
  )
  // What operators have ordered is not counted, and makes no room.
  await host.place({ job: '9'.repeat(32) }, 'own')
  assert.equal(host.pins.hotBytes, 2 * size)
  await host.place(hotJob(4, 9))
  assert.ok(host.pins.list().some(({ job }) => job === '9'.repeat(32)))
  const small = new Host({ hot: { isOn: true, diskBytes: size - 1, bytesPerSecond: gibibyte } })
  await assert.rejects(small.place(hotJob(1, 100)), refused('busy'))
  assert.deepEqual([small.fetched, small.pins.list()], [[], []])
})

test('where the operator wants no hot images, none is placed, not even by this host', async () => {
  const host = new Host({ hot: { isOn: false, diskBytes: gibibyte, bytesPerSecond: gibibyte } })
  for (const peer of ['x', 'own']) await assert.rejects(host.place(hotJob(1, 9), peer), refused('denied'))
  assert.deepEqual(host.fetched, [])
  await host.place()
})

test('chunks of hot images come no faster than they may, those of orders do', async () => {
  const hot = { isOn: true, diskBytes: gibibyte, bytesPerSecond: 2 * 4096 }
  const host = new Host({ hot })
  const placed = host.place(hotJob(1, 9))
  // One at once, then two a second: the eighth after three and a half.
  await host.clock.pass(3_400)
  assert.equal(host.fetched.length, 7)
  await host.clock.pass(200)
  await placed
  assert.equal(host.fetched.length, 8)
  const ordered = new Host({ hot })
  await ordered.place()
})

test('pins of hot images end on a member’s word, those of the operator do not', async () => {
  const host = new Host()
  await host.place(hotJob(1, 9), 'own')
  await host.pins.release('1'.padStart(32, '0'), 'x')
  assert.deepEqual(host.pins.list(), [])
})
