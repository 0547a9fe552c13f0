import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import type { PlaceRequest } from '../../../protocol/messages/seed.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { ImageRootfs } from '../../../node/model/image.ts'
import { chunkRequests, tablesOf } from '../../../node/model/rootfs-chunks.ts'
import { encodePinRecord, parsePinRecord } from '../../../node/store/pin-record.ts'
import { makeTable } from './seed-fakes.ts'

import { Host, hotJob, refused, request } from './placement-host.ts'

test('images that are mounted often stay within their budget: the lightest makes room, and heavier ones do not', async () => {
  const size = 8 * 4096
  const host = new Host({ hotDiskBytes: 2 * size })
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
  // Images that operators have ordered are not counted, and make no room.
  await host.place({ job: '9'.repeat(32) }, 'own')
  assert.equal(host.pins.hotBytes, 2 * size)
  await host.place(hotJob(4, 9))
  assert.ok(host.pins.list().some(({ job }) => job === '9'.repeat(32)))
  const small = new Host({ hotDiskBytes: size - 1 })
  await assert.rejects(small.place(hotJob(1, 100)), refused('busy'))
  assert.deepEqual([small.fetched, small.pins.list()], [[], []])
})

test('where the operator wants no hot images, none is placed, not even by this host', async () => {
  const host = new Host({ takesHot: false })
  for (const peer of ['x', 'own']) await assert.rejects(host.place(hotJob(1, 9), peer), refused('denied'))
  assert.deepEqual(host.fetched, [])
  await host.place()
})

test('chunks of hot images come no faster than they may, those of orders do', async () => {
  const host = new Host()
  host.hotBandwidth.bytesPerSecond = 2 * 4096
  const placed = host.place(hotJob(1, 9))
  // One at once, then two a second, and a tenth of a second ahead: the eighth after 3.4 s.
  await host.clock.pass(3_300)
  assert.equal(host.fetched.length, 7)
  await host.clock.pass(200)
  await placed
  assert.equal(host.fetched.length, 8)
  const ordered = new Host()
  ordered.hotBandwidth.bytesPerSecond = 2 * 4096
  await ordered.place()
})

test('pins of hot images end on a member’s word, those of the operator do not', async () => {
  const host = new Host()
  await host.place(hotJob(1, 9), 'own')
  await host.pins.release('1'.padStart(32, '0'), 'x')
  assert.deepEqual(host.pins.list(), [])
})

/** An image of its own metadata, and of data that it shares with others of the same name. */
function addImage(host: Host, name: string, shared = name): Partial<PlaceRequest> & { own: Digest; common: Digest } {
  const [own, common] = [makeTable(`${name} metadata`, 2), makeTable(`${shared} data`, 6)]
  const rootfsDigest = digestOf(Buffer.from(name))
  const made = { metadata: own, layers: [{ chunks: common }] } as unknown as RootfsManifest
  host.rootfs.set(rootfsDigest, made)
  host.found = { manifest: made } as ImageRootfs
  return { rootfsDigest, own: own.digestAt(0), common: common.digestAt(0) }
}

const imageBytes = 8 * 4096
const { signal } = new AbortController()

function hotHost(images: number): Host {
  return new Host({ hotDiskBytes: images * imageBytes })
}

test('what a hot image has left when its pin has ended is evicted when another needs the room, the lightest first', async () => {
  const host = hotHost(2)
  const heavy = addImage(host, 'heavy')
  await host.place({ ...hotJob(1, 9), ...heavy })
  const light = addImage(host, 'light')
  await host.place({ ...hotJob(2, 4), ...light })
  await host.pins.expire(request.untilMs)
  assert.deepEqual(host.pins.list(), [])
  assert.equal(host.hotRoom.usedBytes, 2 * imageBytes)
  const next = addImage(host, 'next')
  await host.place({ ...hotJob(3, 3), ...next })
  assert.deepEqual(
    [host.chunks.has(heavy.own), host.chunks.has(light.own), host.chunks.has(next.own)],
    [true, false, true],
  )
  assert.equal(host.chunks.size, 16)
  assert.equal(host.hotRoom.usedBytes, 2 * imageBytes)
})

test('a budget that has become less ends pins and evicts, also in the process after', async () => {
  const host = hotHost(2)
  const heavy = addImage(host, 'heavy')
  await host.place({ ...hotJob(1, 9), ...heavy })
  const light = addImage(host, 'light')
  await host.place({ ...hotJob(2, 4), ...light })
  const less = hotHost(1)
  for (const digest of host.chunks) less.chunks.add(digest)
  for (const [digest, manifest] of host.rootfs) less.rootfs.set(digest, manifest)
  for (const [key, pin] of host.catalog.records) less.catalog.records.set(key, parsePinRecord(encodePinRecord(pin)))
  await less.pins.open()
  await less.hotRoom.fit({ signal })
  assert.deepEqual(
    less.pins.list().map(({ rootfsDigest }) => rootfsDigest),
    [heavy.rootfsDigest],
  )
  assert.equal(less.chunks.size, 8)
  assert.ok(less.chunks.has(heavy.own) && !less.chunks.has(light.own))
})

test('no image is evicted that is mounted, pinned for an order, made whole by its user, or was here before', async () => {
  const uses: Record<string, (host: Host, placed: Partial<PlaceRequest>) => Promise<void>> = {
    mounted: async (host, { rootfsDigest }) => void (await Promise.resolve(host.mounted.add(rootfsDigest!))),
    ordered: async (host, { rootfsDigest }) =>
      void (await host.place({ rootfsDigest: rootfsDigest!, job: '9'.repeat(32), untilMs: 2_000_000 })),
    seeded: async (host, { rootfsDigest }) => await host.pins.claim(rootfsDigest!),
  }
  for (const [name, use] of Object.entries(uses)) {
    const host = hotHost(1)
    const placed = addImage(host, 'placed')
    await host.place({ ...hotJob(1, 3), ...placed })
    await use(host, placed)
    await host.pins.expire(request.untilMs)
    const other = addImage(host, 'other')
    // An image in use may take the room; one that its user has made whole takes none.
    const next = host.place({ ...hotJob(2, 9), ...other })
    await (name === 'seeded' ? next : assert.rejects(next, refused('busy')))
    assert.ok(host.chunks.has(placed.own) && host.chunks.has(placed.common), name)
  }
  const host = hotHost(1)
  const whole = addImage(host, 'whole')
  for (const table of tablesOf(host.rootfs.get(whole.rootfsDigest!)!))
    for (const { digest } of chunkRequests([table])) host.chunks.add(digest)
  await host.place({ ...hotJob(1, 3), ...whole })
  await host.pins.expire(request.untilMs)
  await host.place({ ...hotJob(2, 9), ...addImage(host, 'other') })
  assert.ok(host.chunks.has(whole.own))
})

test('chunks that other images of the host have stay, and go with the last of them that was placed', async () => {
  const host = hotHost(2)
  const first = addImage(host, 'first', 'base')
  await host.place({ ...hotJob(1, 3), ...first })
  const second = addImage(host, 'second', 'base')
  await host.place({ ...hotJob(2, 4), ...second })
  await host.pins.expire(request.untilMs)
  await host.place({ ...hotJob(3, 9), ...addImage(host, 'third') })
  assert.deepEqual([host.chunks.has(first.own), host.chunks.has(first.common)], [false, true])
  await host.place({ ...hotJob(4, 9), ...addImage(host, 'fourth') })
  assert.deepEqual([host.chunks.has(second.own), host.chunks.has(second.common)], [false, false])
})
