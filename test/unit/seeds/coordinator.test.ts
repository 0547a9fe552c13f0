import assert from 'node:assert/strict'
import { test } from 'node:test'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { SeedExtent, SeedJob, SeedProgress } from '../../../protocol/seed-job.ts'
import { silentLog } from '../../../node/base/log.ts'
import { Coordinator, type Place } from '../../../node/seeds/coordinator.ts'
import { settled } from '../../support/fake-clock.ts'
import { makeJob } from './seed-fakes.ts'

const done: SeedProgress = { held: 4, verified: 4, total: 4 }

/** A request to a host that has no answer yet. */
interface Asked {
  peer: string
  extent: SeedExtent
  signal: AbortSignal
  progress: (progress: SeedProgress) => void
  answer: (progress?: SeedProgress) => Promise<void>
  refuse: (code: P2pfsError['code']) => Promise<void>
}

/** A region that a job is coordinated in, told what happens step by step. */
class Region {
  readonly up: Set<string>
  readonly asked: Asked[] = []
  nowMs = 0
  job: SeedJob
  /** Hosts of the other jobs of the order. */
  companions: string[] = []
  readonly coordinator: Coordinator

  constructor(up: string, job: Partial<SeedJob>) {
    this.up = new Set(up)
    this.job = makeJob(job)
    const place: Place = async (peer, { extent }, { signal, onProgress }) => {
      const outcome = Promise.withResolvers<SeedProgress>()
      signal.addEventListener('abort', () => outcome.reject(signal.reason as Error))
      const asked: Asked = {
        peer,
        extent,
        signal,
        progress: onProgress,
        answer: async (progress = done) => {
          this.asked.splice(this.asked.indexOf(asked), 1)
          outcome.resolve(progress)
          await settled()
        },
        refuse: async (code) => {
          this.asked.splice(this.asked.indexOf(asked), 1)
          outcome.reject(new P2pfsError(code, 'refused'))
          await settled()
        },
      }
      this.asked.push(asked)
      return await outcome.promise
    }
    this.coordinator = new Coordinator(
      {
        hosts: {
          alive: () => new Map([...this.up].map((id) => [id, { id, name: id }])),
          byHoldings: () => [...this.up].toSorted(),
        },
        place,
        companions: () => this.companions,
        tables: [],
        today: () => this.nowMs,
        log: silentLog,
      },
      this.job,
    )
  }

  /** Time passes, and the coordinator looks. @returns the hosts that are asked and have not answered */
  tick(ms = 1_000): string {
    this.nowMs += ms
    this.coordinator.tick(this.job)
    return this.asked
      .filter(({ signal }) => !signal.aborted)
      .map(({ peer }) => peer)
      .join('')
  }

  of(peer: string): Asked {
    return this.asked.findLast((asked) => asked.peer === peer && !asked.signal.aborted)!
  }

  states(): string {
    return this.coordinator.targets
      .map(({ peer, state }) => `${peer} ${state}`)
      .toSorted()
      .join(', ')
  }
}

test('all hosts of a job work on it at once, up to a bound, and the next begins when one is done', async () => {
  const region = new Region('abcdefgh', { places: { copies: 8 } })
  assert.equal(region.tick(), 'abcdefgh')
  const many = Array.from({ length: 80 }, (_, i) => String.fromCodePoint(0x4e00 + i))
  const large = new Region(many.join(''), { places: { all: true } })
  const first = large.tick()
  assert.equal(first.length, 32)
  await large.of(first[3]!).answer()
  assert.equal(large.tick().length, 32)
})

test('hosts that hold their copy are asked for it although others are at work as many as may be', async () => {
  const many = Array.from({ length: 80 }, (_, i) => String.fromCodePoint(0x4e00 + i))
  const region = new Region(many.join(''), { places: { all: true } })
  const [first] = region.tick()
  await region.of(first!).answer()
  assert.equal(region.tick(1_000).includes(first!), false)
  assert.equal(region.tick(5_000).includes(first!), true)
})

test('a job goes where the others of its order are, as far as these hosts are there', async () => {
  const region = new Region('abcde', { places: { copies: 2 } })
  region.companions = ['d', 'gone', 'c', 'e']
  assert.equal(region.tick(), 'dc')
  for (const asked of region.asked.slice()) await asked.answer()
  region.up.delete('d')
  assert.equal(region.tick(), 'e')
})

test('a target that is gone or fails is replaced, and the wanted number is reached', async () => {
  const region = new Region('abcde', { places: { copies: 3 } })
  region.tick()
  await region.of('a').answer()
  assert.equal(region.tick(), 'bc')
  region.up.delete('b')
  await region.of('c').refuse('busy')
  assert.equal(region.tick(), 'de')
  await region.of('d').answer()
  assert.equal(region.coordinator.isPlaced(), false)
  await region.of('e').answer()
  assert.equal(region.coordinator.isPlaced(), true)
  assert.equal(region.states(), 'a held, b gone, c failed, d held, e held')
  // None that has failed before is asked again: nothing is lacking.
  assert.equal(region.tick(4_000).includes('c'), false)
})

test('a host that says it is done, and has not all or has not hashed all, is no copy', async () => {
  for (const lie of [
    { held: 4, verified: 3, total: 4 },
    { held: 3, verified: 3, total: 4 },
    { held: 0, verified: 0, total: 0 },
  ]) {
    const region = new Region('a', { places: { copies: 1 } })
    region.tick()
    await region.of('a').answer(lie)
    assert.equal(region.coordinator.isPlaced(), false)
    assert.equal(region.states(), 'a failed')
  }
})

test('a copy that loses a chunk is no copy until it has it again', async () => {
  const region = new Region('a', { places: { copies: 1 } })
  region.tick()
  await region.of('a').answer()
  region.tick()
  assert.equal(region.coordinator.isPlaced(), true)
  assert.equal(region.tick(60_000), 'a')
  region.of('a').progress({ held: 3, verified: 3, total: 4 })
  assert.equal(region.coordinator.isPlaced(), false)
  assert.equal(region.states(), 'a placing')
  await region.of('a').answer()
  assert.equal(region.states(), 'a held')
})

test('a coordinator that takes over believes no copy before its host has confirmed it', async () => {
  const held = { name: '', extent: 'full', state: 'held', ...done } as const
  const region = new Region('ab', {
    places: { copies: 2 },
    targets: [
      { ...held, peer: 'a' },
      { ...held, peer: 'b' },
    ],
  })
  assert.equal(region.tick(), 'ab')
  assert.equal(region.coordinator.isPlaced(), false)
  await region.of('a').answer()
  assert.equal(region.coordinator.isPlaced(), false)
  await region.of('b').answer()
  assert.equal(region.coordinator.isPlaced(), true)
})

test('hosts that are named are asked until they have it, and no others', async () => {
  const region = new Region('abcd', { places: { on: ['b', 'x'] } })
  assert.equal(region.tick(), 'b')
  assert.equal(region.coordinator.isStuck(), true)
  await region.of('b').refuse('busy')
  assert.equal(region.tick(), '')
  assert.equal(region.tick(5_000), 'b')
  region.up.add('x')
  await region.of('b').answer()
  assert.equal(region.tick(), 'x')
  assert.equal(region.coordinator.isStuck(), false)
  await region.of('x').answer()
  assert.equal(region.coordinator.isPlaced(), true)
})

test('hot: metadata goes to all, also to who joins later, and the whole image where it is wanted', async () => {
  const region = new Region('abc', { extent: 'hot', places: { copies: 1 } })
  assert.equal(region.tick(), 'abc')
  await region.of('a').answer()
  region.tick()
  assert.deepEqual(
    region.asked.map(({ peer, extent }) => `${peer} ${extent}`),
    ['b hot', 'c hot'],
  )
  await region.of('b').answer()
  assert.equal(region.coordinator.isPlaced(), false)
  await region.of('c').answer()
  region.tick()
  assert.equal(region.coordinator.isPlaced(), true)
  region.up.add('d')
  assert.equal(region.coordinator.isPlaced(), false)
  region.tick()
  await region.of('d').answer()
  assert.equal(region.coordinator.isPlaced(), true)
})

test('with fewer hosts than copies it is stuck, until one joins', async () => {
  const region = new Region('ab', { places: { copies: 3 } })
  region.tick()
  await region.of('a').answer()
  region.tick()
  assert.equal(region.coordinator.isStuck(), true)
  region.up.add('c')
  assert.equal(region.coordinator.isStuck(), false)
})

test('a host that was gone in the middle is no longer listed when it is back and not needed; one with a copy is asked', async () => {
  const region = new Region('abc', { places: { copies: 2 } })
  region.tick()
  await region.of('a').answer()
  region.tick()
  region.of('b').progress({ held: 1, verified: 1, total: 4 })
  region.up.delete('b')
  region.tick()
  await region.of('c').answer()
  region.up.add('b')
  region.tick()
  assert.equal(region.states(), 'a held, c held')
  region.up.delete('c')
  region.tick()
  assert.equal(region.states(), 'a held, b placing, c gone')
  await region.of('b').answer()
  region.up.add('c')
  assert.ok(region.tick().includes('c'))
  await region.of('c').answer()
  assert.equal(region.states(), 'a held, b held, c held')
})
