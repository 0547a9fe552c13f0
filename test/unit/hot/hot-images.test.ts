import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { SeedImage, SeedJob } from '../../../protocol/seed-job.ts'
import { silentLog } from '../../../node/base/log.ts'
import { HotImages } from '../../../node/hot/hot-images.ts'
import { hotLimits } from '../../../node/hot/hot-limits.ts'
import { nameKey } from '../../../node/hot/mount-counts.ts'
import { rendezvous } from '../../../node/peers/rendezvous.ts'
import type { SeedOrder } from '../../../node/seeds/seed-jobs.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { image, makeJob } from '../seeds/seed-fakes.ts'

const moved: SeedImage = {
  ...image,
  manifestDigest: digestOf(Buffer.from('new manifest')),
  rootfsDigest: digestOf(Buffer.from('new rootfs')),
}
/** In the order in which they count the mounts of the image. */
const names = rendezvous(nameKey(image), ['a', 'b', 'c', 'd', 'e', 'f'])
const [first, second, third, other, another] = names as [string, string, string, string, string, string]

/** Hosts whose orders are noted instead of carried out. */
class Region {
  readonly clock = new FakeClock()
  readonly up = new Map<string, HotImages>()
  /** The state that each host keeps. */
  readonly kept = new Map<string, Map<string, SeedJob>>()
  readonly orders: { by: string; order: SeedOrder }[] = []
  readonly cancelled: string[] = []
  readonly looks: string[] = []
  readonly refreshed: { by: string; reference: string; notWithinMs: number }[] = []
  messages = 0
  tag: SeedImage | undefined

  constructor({ isOn = true }: { isOn?: boolean } = {}) {
    for (const name of names) this.#start(name, isOn)
  }

  #start(own: string, isOn: boolean): void {
    const kept = new Map<string, SeedJob>()
    this.kept.set(own, kept)
    const hot = new HotImages(
      {
        hosts: { own, firstByResponsibility: (key, count) => rendezvous(key, this.up.keys()).slice(0, count) },
        jobs: {
          accept: async (order) => {
            this.orders.push({ by: own, order })
            const job = makeJob({
              ...order.image,
              extent: order.extent,
              places: order.places,
              createdAtMs: this.clock.now(),
              endsAtMs: this.clock.now() + order.ttlMs,
              acceptedBy: own,
              demand: order.demand!,
            })
            kept.set(job.id, job)
            return await Promise.resolve(job)
          },
          cancel: async (id) => {
            this.cancelled.push(own)
            const job = { ...kept.get(id)!, cancelled: true }
            kept.set(id, job)
            return await Promise.resolve(job)
          },
        },
        kept: { get: (id) => kept.get(id) },
        tags: {
          look: async () => {
            this.looks.push(own)
            return await Promise.resolve(this.tag)
          },
          refresh: async ({ reference }, { notWithinMs }) => {
            this.refreshed.push({ by: own, reference, notWithinMs })
            if (reference.includes('silent')) throw new P2pfsError('unavailable', 'no answer')
            return await Promise.resolve(!reference.includes('unlisted'))
          },
        },
        room: { fit: async () => await Promise.resolve() },
        client: {
          mounted: async (peer, images) => {
            this.messages++
            const reached = this.up.get(peer)
            if (reached === undefined) throw new P2pfsError('unavailable', 'not reached')
            reached.told(images, own)
            await Promise.resolve()
          },
        },
        log: silentLog,
        clock: this.clock,
        today: this.clock.now,
      },
      { isOn },
    )
    this.up.set(own, hot)
    hot.start()
  }

  mount(...hosts: string[]): void {
    for (const host of hosts) this.up.get(host)!.mounted(image)
  }

  async stop(name: string): Promise<void> {
    await this.up.get(name)!.stop()
    this.up.delete(name)
  }

  /** As long as it takes until what is hot has been placed. */
  async settle(): Promise<void> {
    await this.clock.pass(hotLimits.settleMs + 20_000)
  }
}

test('an image that several hosts mount is placed, by one host, once the burst is over', async () => {
  const region = new Region()
  region.mount(other, other, another)
  await region.clock.pass(hotLimits.settleMs - 1)
  assert.equal(region.orders.length, 0)
  await region.settle()
  assert.equal(region.orders.length, 1)
  const { by, order } = region.orders[0]!
  assert.equal(by, first)
  assert.deepEqual(order.demand, { mounts: 3, hosts: 2 })
  assert.deepEqual(order.places, { copies: 2 })
  assert.equal(order.extent, 'hot')
  // Both told the three counters, in one message each.
  assert.equal(region.messages, 6)
})

test('fewer mounts, or those of one host, place nothing', async () => {
  const region = new Region()
  region.mount(other, another)
  await region.settle()
  for (let i = 0; i < 20; i++) region.mount(other)
  await region.clock.pass(1)
  assert.deepEqual(region.orders, [])
  const alone = new Region()
  for (let i = 0; i < 20; i++) alone.mount(other)
  await alone.settle()
  assert.deepEqual(alone.orders, [])
})

test('where hot images are off, nothing is told, counted or placed', async () => {
  const region = new Region({ isOn: false })
  region.mount(...names, ...names)
  region.up.get(first)!.told([{ image, mounts: 2 }], 'x')
  await region.settle()
  assert.deepEqual([region.orders, region.messages, region.up.get(first)!.counted()], [[], 0, []])
})

test('more mounts want more copies, up to a bound', async () => {
  const region = new Region()
  region.mount(...names)
  await region.settle()
  assert.deepEqual(region.orders.at(-1)!.order.places, { copies: 4 })
  const hot = region.up.get(first)!
  for (let i = 0; i < 200; i++) hot.told([{ image, mounts: 2 }], `source ${i}`)
  await region.settle()
  assert.deepEqual(region.orders.at(-1)!.order.places, { copies: hotLimits.copies.most })
})

test('the order is given anew while the image is hot, and ended when it cools', async () => {
  const region = new Region()
  region.mount(...names)
  await region.settle()
  const given = region.orders.length
  await region.clock.pass(hotLimits.ttlMs / 2)
  region.mount(...names)
  await region.settle()
  assert.ok(region.orders.length > given)
  assert.deepEqual(region.cancelled, [])
  await region.clock.pass(6 * hotLimits.halfLifeMs)
  assert.deepEqual(region.cancelled, [first])
  // It may become hot again.
  const before = region.orders.length
  region.mount(...names)
  await region.settle()
  assert.equal(region.orders.length, before + 1)
})

test('an order that the operator has cancelled is not given anew', async () => {
  const region = new Region()
  region.mount(...names)
  await region.settle()
  const kept = region.kept.get(first)!
  for (const [id, job] of kept) kept.set(id, { ...job, cancelled: true })
  const given = region.orders.length
  region.mount(...names)
  await region.settle()
  assert.equal(region.orders.length, given)
})

test('when the first counter is lost the next one goes on with what it has counted', async () => {
  const region = new Region()
  region.mount(other, another, third)
  await region.settle()
  await region.stop(first)
  await region.settle()
  assert.deepEqual(
    region.orders.map(({ by }) => by),
    [first, second],
  )
})

test('where the tag of a hot image has moved the new image is placed before anybody mounts it', async () => {
  const region = new Region()
  region.mount(...names)
  await region.settle()
  region.tag = moved
  await region.clock.pass(2 * hotLimits.settleMs)
  const placed = new Set(region.orders.map(({ order }) => order.image.rootfsDigest))
  assert.deepEqual(placed, new Set([image.rootfsDigest, moved.rootfsDigest]))
  assert.deepEqual(new Set(region.looks), new Set([first]))
})

test('a tag that is mounted now and then is asked for ahead of its mounts, by one host, as long as one mount counts half', async () => {
  const region = new Region()
  region.mount(other)
  await region.clock.pass(20_000)
  assert.ok(region.refreshed.length > 0)
  for (const { by, notWithinMs } of region.refreshed)
    assert.deepEqual([by, notWithinMs], [first, hotLimits.lookMs], 'its first counter, no oftener than a hot one')
  await region.clock.pass(hotLimits.halfLifeMs)
  region.refreshed.length = 0
  await region.clock.pass(hotLimits.halfLifeMs)
  assert.deepEqual([region.refreshed, region.looks, region.orders], [[], [], []])
})

test('tags that are asked for ahead are four at once; those that need not be asked for, or are silent, hold up none', async () => {
  const region = new Region()
  const hot = region.up.get(first)!
  const tags = ['unlisted', 'silent', 'listed'].flatMap((kind) =>
    Array.from({ length: 20 }, (_, i) => ({ ...image, reference: `host.test/${kind}-${i}:1` })),
  )
  for (const tag of tags) hot.told([{ image: tag, mounts: 1 }], other)
  const mine = tags.filter((tag) => rendezvous(nameKey(tag), region.up.keys())[0] === first)
  await region.clock.pass(5_000)
  const asked = region.refreshed.map(({ reference }) => reference)
  assert.ok(asked.every((reference) => mine.some((tag) => tag.reference === reference)))
  const isAsked = (reference: string): boolean => !reference.includes('unlisted')
  assert.ok(asked.some((reference) => !isAsked(reference)) && asked.some((reference) => reference.includes('silent')))
  assert.equal(asked.filter(isAsked).length, hotLimits.refresh.atOnce)
})

test('a host that resolves a hot tag to another image has the tag looked at at once', async () => {
  const region = new Region()
  region.mount(...names)
  await region.clock.pass(10_000)
  assert.deepEqual(region.looks, [])
  region.up.get(other)!.mounted(moved, 0)
  await region.clock.pass(1_500)
  assert.deepEqual(region.looks, [first])
})

test('what one source may tell of in a while is bounded', async () => {
  const region = new Region()
  const hot = region.up.get(first)!
  const isCounted = (): boolean => hot.counted().some((count) => count.image.reference === image.reference)
  for (let i = 0; i < hotLimits.told.burst; i++)
    hot.told([{ image: { ...image, reference: `host/r:${i}x` }, mounts: 1 }], 'x')
  hot.told([{ image, mounts: 1 }], 'x')
  assert.equal(isCounted(), false)
  await region.clock.pass(1_000)
  hot.told([{ image, mounts: 1 }], 'x')
  assert.equal(isCounted(), true)
  hot.told([{ image: moved, mounts: 1 }], 'y')
  assert.ok(hot.counted().some((count) => count.image.rootfsDigest === moved.rootfsDigest))
})
