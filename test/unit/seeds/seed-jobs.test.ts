import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { encodeSeedJob, isCopy, parseSeedJob, type SeedJob, type SeedProgress } from '../../../protocol/seed-job.ts'
import { silentLog } from '../../../node/base/log.ts'
import { rendezvous } from '../../../node/peers/rendezvous.ts'
import { KeptJobs } from '../../../node/seeds/kept-jobs.ts'
import { Pins } from '../../../node/seeds/pins.ts'
import type { RegionHosts } from '../../../node/seeds/region-hosts.ts'
import { SeedJobs, type SeedOrder } from '../../../node/seeds/seed-jobs.ts'
import { FakeClock, settled } from '../../support/fake-clock.ts'
import { FakeCatalog, image } from './seed-fakes.ts'

const signal = new AbortController().signal
const order: SeedOrder = { image, extent: 'full', places: { copies: 3 }, atMs: 0, ttlMs: 3_600_000 }
const done: SeedProgress = { held: 4, verified: 4, total: 4 }
const again = (job: SeedJob): SeedJob => parseSeedJob(encodeSeedJob(job))

/** One process of a host. */
interface Process {
  kept: KeptJobs
  pins: Pins
  jobs: SeedJobs
}

/** Hosts that reach each other, with catalogs that outlive their processes. */
class Region {
  readonly clock = new FakeClock()
  readonly catalogs = new Map<string, FakeCatalog>()
  readonly up = new Map<string, Process>()
  /** How often each host was asked to hold the image. */
  readonly asked = new Map<string, number>()
  /** The behaviour of a host when it is asked. */
  place: (peer: string, signal: AbortSignal) => Promise<SeedProgress> = async () => await Promise.resolve(done)

  async start(...names: string[]): Promise<void> {
    for (const name of names) {
      const catalog = this.catalogs.get(name) ?? new FakeCatalog()
      this.catalogs.set(name, catalog)
      const kept = new KeptJobs({ own: name, catalog, today: this.clock.now })
      const pins = new Pins({ own: name, catalog })
      await kept.open()
      await pins.open()
      const alive = (): string[] => [...this.up.keys()]
      const hosts = {
        own: name,
        alive: () => new Map(alive().map((id) => [id, { id, name: id }])),
        byResponsibility: (key: string) => rendezvous(key, alive()),
        byHoldings: (key: string) => rendezvous(key, alive()),
      } as unknown as RegionHosts
      const reach = (peer: string): Process => {
        const other = this.up.get(peer)
        if (other === undefined || !this.up.has(name)) throw new P2pfsError('unavailable', 'not reached')
        return other
      }
      const place = async (peer: string, signal: AbortSignal): Promise<SeedProgress> => {
        reach(peer)
        this.asked.set(peer, (this.asked.get(peer) ?? 0) + 1)
        return await this.place(peer, signal)
      }
      const jobs = new SeedJobs({
        hosts,
        kept,
        pins,
        placements: { place: async (_request, { signal }) => await place(name, signal) },
        client: {
          place: async (peer, _request, { signal }) => await place(peer, signal),
          keep: async (peer, job) => again(await reach(peer).jobs.keptJob(again(job), name)),
          release: async (peer, job) => await reach(peer).pins.release(job, name),
          jobs: async (peer) => await Promise.resolve(reach(peer).kept.list().map(again)),
        },
        catalog,
        whenRegionKnown: async () => await Promise.resolve(),
        log: silentLog,
        clock: this.clock,
        today: this.clock.now,
      })
      this.up.set(name, { kept, pins, jobs })
      jobs.start()
    }
    await settled()
  }

  async kill(...names: string[]): Promise<void> {
    for (const name of names) {
      const { jobs } = this.up.get(name)!
      this.up.delete(name)
      await jobs.stop()
    }
  }

  jobs(name: string): SeedJobs {
    return this.up.get(name)!.jobs
  }

  async accept(name: string): Promise<SeedJob> {
    const job = await this.jobs(name).accept(order)
    await settled()
    return job
  }

  async listed(name: string): Promise<SeedJob> {
    const [job, ...more] = await this.jobs(name).list({ signal })
    assert.ok(job !== undefined && more.length === 0)
    return job
  }

  copies(job: SeedJob): string {
    return job.targets
      .filter(isCopy)
      .map(({ peer }) => peer)
      .toSorted()
      .join('')
  }
}

test('an order is kept on three hosts before it is taken, and every host shows how far it has got', async () => {
  const region = new Region()
  await region.start('a', 'b', 'c', 'd', 'e')
  const job = await region.accept('a')
  assert.equal(job.keepers.length, 3)
  for (const keeper of job.keepers) assert.equal(region.catalogs.get(keeper)!.jobs.size, 1)
  await region.clock.pass(6_000)
  for (const name of region.up.keys()) assert.equal(region.copies(await region.listed(name)).length, 3)
  assert.equal(region.asked.size, 3)
})

test('an order goes on when the hosts that coordinate it are lost, one after the other', async () => {
  const region = new Region()
  await region.start('a', 'b', 'c', 'd', 'e', 'f')
  region.place = async () => await new Promise(() => undefined)
  const { keepers } = await region.accept('a')
  await region.clock.pass(3_000)
  await region.kill('a')
  await region.clock.pass(3_000)
  await region.kill(keepers[1]!)
  region.place = async () => await Promise.resolve(done)
  await region.clock.pass(10_000)
  const job = await region.listed(keepers[2]!)
  assert.equal(region.copies(job).length, 3)
  assert.ok(!region.copies(job).includes('a'))
  // Others keep it in the place of those that are lost; the one that took it comes first when it is back.
  assert.equal(job.keepers.filter((keeper) => region.up.has(keeper)).length, 3)
  assert.equal(job.keepers[0], 'a')
})

test('a host that took an order and starts anew takes it up again, with what others have come to meanwhile', async () => {
  const region = new Region()
  await region.start('a', 'b', 'c', 'd')
  region.place = async () => await new Promise(() => undefined)
  await region.accept('a')
  await region.clock.pass(2_000)
  await region.kill('a')
  region.place = async () => await Promise.resolve(done)
  await region.clock.pass(10_000)
  await region.start('a')
  const placed = (await region.listed('b')).targets.filter(isCopy).map(({ peer }) => peer)
  const waited = region
    .jobs('a')
    .wait((await region.listed('b')).id, { signal, timeoutMs: 60_000, stuckMs: 30_000, onChange: () => undefined })
  await region.clock.pass(10_000)
  const { job, isPlaced } = await waited
  assert.equal(isPlaced, true)
  assert.ok(
    placed.every((peer) => region.copies(job).includes(peer)),
    'the copies stay',
  )
})

test('a wait ends with no success when the time is over, and when hosts are lacking for long', async () => {
  for (const [names, timeoutMs, atMs] of [
    [['a', 'b', 'c'], 20_000, 20_000],
    [['a', 'b'], 600_000, 30_000],
  ] as const) {
    const region = new Region()
    await region.start(...names)
    let first: string | undefined
    region.place = async (peer) => {
      first ??= peer
      return peer === first ? await Promise.resolve(done) : await new Promise(() => undefined)
    }
    const { id } = await region.accept('a')
    const outcomes: { job: SeedJob; isPlaced: boolean }[] = []
    void region
      .jobs('a')
      .wait(id, { signal, timeoutMs, stuckMs: 30_000, onChange: () => undefined })
      .then((outcome) => outcomes.push(outcome))
    await region.clock.pass(atMs - 2_000)
    assert.deepEqual(outcomes, [])
    await region.clock.pass(6_000)
    assert.deepEqual(
      outcomes.map(({ job, isPlaced }) => [region.copies(job), isPlaced]),
      [[first, false]],
    )
  }
})

test('a wait ends with no success when the job is cancelled', async () => {
  const region = new Region()
  await region.start('a', 'b', 'c')
  region.place = async () => await new Promise(() => undefined)
  const { id } = await region.accept('a')
  const options = { signal, timeoutMs: 600_000, stuckMs: 30_000, onChange: () => undefined }
  const waited = region.jobs('a').wait(id, options)
  await region.clock.pass(3_000)
  await region.jobs('b').cancel(id, { signal })
  await region.clock.pass(3_000)
  assert.equal((await waited).isPlaced, false)
})

test('a job that is cancelled on any host ends on all, with its pins, and no keeper that was away revives it', async () => {
  const region = new Region()
  await region.start('a', 'b', 'c', 'd', 'e', 'f')
  const { id, keepers } = await region.accept('a')
  await region.clock.pass(3_000)
  for (const { pins } of region.up.values())
    await pins.put({ ...image, job: id, extent: 'full', untilMs: 1e9, peer: 'a', sizeBytes: 1 }, { sizeBytes: 100 })
  await region.kill(keepers[1]!)
  const outsider = [...region.up.keys()].find((name) => !keepers.includes(name))!
  await region.jobs(outsider).cancel(id, { signal })
  await region.clock.pass(3_000)
  await region.start(keepers[1]!)
  region.asked.clear()
  await region.clock.pass(120_000)
  assert.equal((await region.listed(outsider)).cancelled, true)
  assert.equal(region.asked.size, 0)
  for (const { peer } of (await region.listed(outsider)).targets)
    if (peer !== keepers[1]) assert.deepEqual(region.up.get(peer)!.pins.list(), [])
  await assert.rejects(region.jobs('a').cancel('f'.repeat(32), { signal }), (error) => isP2pfsError(error, 'missing'))
})

test('the same order twice is one job, which lasts longer; another begins when its time has come', async () => {
  const region = new Region()
  await region.start('a', 'b')
  const first = await region.accept('a')
  await region.clock.pass(5_000)
  const second = await region.accept('a')
  assert.equal(second.id, first.id)
  assert.equal(second.endsAtMs, first.endsAtMs + 5_000)
  region.asked.clear()
  await region.jobs('a').cancel(first.id, { signal })
  const later = await region.jobs('a').accept({ ...order, atMs: region.clock.now() + 60_000 })
  assert.notEqual(later.id, first.id)
  await region.clock.pass(58_000)
  assert.equal(region.asked.size, 0)
  await region.clock.pass(5_000)
  assert.equal(region.asked.size, 2)
})
