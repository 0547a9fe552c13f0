import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Urgency } from '../../../node/base/urgency.ts'
import { RequestGate } from '../../../node/registry/request-gate.ts'
import { createRandom } from '../../support/random.ts'
import { fails, signal } from '../../support/registry/fault-client.ts'

/** Time passes when the test says so. */
class ManualClock {
  nowMs = 0
  readonly #sleepers: { atMs: number; wake: () => void }[] = []
  now = (): number => this.nowMs
  random = (): number => 0.5
  sleep = async (ms: number, aborted: AbortSignal): Promise<void> => {
    await new Promise<void>((resolve, reject) => {
      this.#sleepers.push({ atMs: this.nowMs + ms, wake: resolve })
      aborted.addEventListener('abort', () => reject(aborted.reason as Error), { once: true })
    })
  }

  async advance(ms: number): Promise<void> {
    const end = this.nowMs + ms
    for (;;) {
      this.#sleepers.sort((a, b) => a.atMs - b.atMs)
      const [next] = this.#sleepers
      if (next === undefined || next.atMs > end) break
      this.#sleepers.shift()
      this.nowMs = Math.max(this.nowMs, next.atMs)
      next.wake()
      await settled()
    }
    this.nowMs = end
    await settled()
  }
}

const settled = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))

function createGate(limits: { connections: number; requestsPerSecond: number }): {
  gate: RequestGate
  clock: ManualClock
  enter: (name: string, urgent?: boolean) => void
  entered: string[]
  leave: Map<string, () => void>
} {
  const clock = new ManualClock()
  const gate = new RequestGate({ clock }, { host: 'host', ...limits })
  const entered: string[] = []
  const leave = new Map<string, () => void>()
  const enter = (name: string, urgent = false): void => {
    void gate.enter({ urgency: new Urgency(urgent), signal }).then(
      (over) => {
        entered.push(name)
        leave.set(name, over)
      },
      () => undefined,
    )
  }
  return { gate, clock, enter, entered, leave }
}

test('urgent requests go first, and find a connection that others may not take', async () => {
  const { enter, entered, leave } = createGate({ connections: 4, requestsPerSecond: 1000 })
  for (const name of ['a', 'b', 'c', 'd', 'e']) enter(name)
  await settled()
  assert.deepEqual(entered, ['a', 'b', 'c'])
  enter('u1', true)
  enter('u2', true)
  await settled()
  assert.deepEqual(entered, ['a', 'b', 'c', 'u1'])
  leave.get('a')!()
  leave.get('a')!()
  await settled()
  assert.deepEqual(entered.slice(4), ['u2'], 'before d, which came first; and leaving twice is leaving once')
  leave.get('u1')!()
  leave.get('u2')!()
  await settled()
  assert.deepEqual(entered.slice(5), ['d'])
})

test('a gate of one connection lets everything through, one by one', async () => {
  const { enter, entered, leave } = createGate({ connections: 1, requestsPerSecond: 1000 })
  enter('a')
  enter('b')
  await settled()
  assert.deepEqual(entered, ['a'])
  leave.get('a')!()
  await settled()
  assert.deepEqual(entered, ['a', 'b'])
})

test('so many per second, as many at once after a rest, none during a pause', async () => {
  const { gate, clock, enter, entered } = createGate({ connections: 1000, requestsPerSecond: 10 })
  for (let i = 0; i < 40; i++) enter(`${i}`)
  await settled()
  assert.equal(entered.length, 10)
  await clock.advance(1000)
  assert.equal(entered.length, 20)
  gate.pause(5000)
  await clock.advance(4900)
  assert.equal(entered.length, 20)
  await clock.advance(200)
  assert.ok(entered.length >= 30)
  assert.deepEqual(
    entered,
    entered.toSorted((a, b) => Number(a) - Number(b)),
  )
})

test('the queue has a bound; who gives up leaves it; a gate that is closed turns all away', async () => {
  const { gate, enter, entered } = createGate({ connections: 1, requestsPerSecond: 1000 })
  enter('first')
  await settled()
  const abort = new AbortController()
  const waiting = Array.from(
    { length: 1024 },
    async () => await gate.enter({ urgency: new Urgency(false), signal: abort.signal }),
  )
  const results = Promise.allSettled(waiting)
  await assert.rejects(
    gate.enter({ urgency: new Urgency(true), signal }),
    fails('busy', /1024 requests wait for host already.*--registry-connections/),
  )
  abort.abort(new Error('enough'))
  assert.ok((await results).every(({ status }) => status === 'rejected'))
  const last = gate.enter({ urgency: new Urgency(false), signal })
  const rejected = assert.rejects(last, fails('closed', /closed/))
  gate.close()
  await rejected
  await assert.rejects(gate.enter({ urgency: new Urgency(false), signal }), fails('closed', /closed/))
  assert.deepEqual(entered, ['first'])
})

test('seeded: never more than there are connections, and everybody gets in', async (t) => {
  const seed = 7
  t.diagnostic(`seed ${seed}`)
  const random = createRandom(seed)
  const { gate, clock } = createGate({ connections: 5, requestsPerSecond: 50 })
  let active = 0
  let done = 0
  for (let i = 0; i < 500; i++) {
    const abort = new AbortController()
    const entering = gate
      .enter({ urgency: new Urgency(random.below(2) === 0), signal: abort.signal })
      .then(async (leave) => {
        active++
        assert.ok(active <= 5)
        await clock.sleep(random.below(100), signal)
        active--
        done++
        leave()
      })
    if (random.below(10) === 0) abort.abort(new Error('enough'))
    entering.catch(() => done++)
    if (random.below(50) === 0) gate.pause(random.below(500))
    await clock.advance(random.below(30))
  }
  await clock.advance(60_000)
  assert.equal(done, 500)
  assert.ok(gate.isIdle)
})
