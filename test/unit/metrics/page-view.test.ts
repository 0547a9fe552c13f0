import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ByteHistory, historySteps, historyStepMs, type ByteTotals } from '../../../node/metrics/byte-history.ts'
import { PageView } from '../../../node/metrics/page-view.ts'
import { StatusPage } from '../../../node/metrics/status-page.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { regionStatus, regionView } from './page-fakes.ts'

const { signal } = new AbortController()

interface View {
  counts: { images: number; hosts: number; mounts: number }
  hosts: object[]
  mounts: object[]
  images: { reference: string; wholeOn: number; partlyOn: number; hosts: { name: string; share: number }[] }[]
  seeds?: object[]
}

/** A view of this status, in a region whose members hold nothing. */
function viewOf(
  status: object,
  seeds: object = { run: async () => await Promise.resolve({ seeds: [] }) },
  now?: () => number,
): PageView {
  const parts = {
    status: { run: async () => await Promise.resolve(status) },
    seeds,
    network: { membership: { members: () => [] } },
    catalog: { rootfs: async () => await Promise.resolve(undefined) },
    history: { rates: () => ({}) },
    readiness: { reason: undefined },
    room: async () => await Promise.resolve({ freeBytes: 1, sizeBytes: 2 }),
  } as unknown as ConstructorParameters<typeof PageView>[0]
  return new PageView(parts, { ...(now && { now }) })
}

const made = async (view: PageView): Promise<View> => (await view.make({ signal })) as View

test('an image shows which hosts hold how much of it, those that hold most first', async () => {
  const { images } = await made(regionView())
  const [python, , , , golden] = images
  assert.deepEqual([python?.wholeOn, python?.partlyOn, python?.hosts.length], [4, 6, 8])
  assert.deepEqual(python?.hosts.map(({ share }) => share).slice(0, 5), [1, 1, 1, 1, 0.64])
  assert.deepEqual([golden?.wholeOn, golden?.partlyOn, golden?.hosts], [0, 0, []])
})

test('tables are bounded, images that are in use come first, and the counts tell of all', async () => {
  const status = regionStatus({ hosts: 300 })
  const [used, ...others] = status.images
  const many = Array.from({ length: 150 }, (_, i) => ({
    ...others[0]!,
    reference: `unused:${i}`,
    digest: `unused ${i}`,
  }))
  const view = await made(viewOf({ ...status, images: [...many, used!] }))
  assert.deepEqual([view.counts.hosts, view.hosts.length], [300, 100])
  assert.deepEqual([view.counts.images, view.images.length], [151, 100])
  assert.equal(view.images[0]?.reference, used!.reference)
})

test('what is shown is chosen field by field: nothing else of the status gets out', async () => {
  const status = { ...regionStatus(), secret: 'hunter2', addresses: ['/ip4/10.9.8.7/tcp/4100'] }
  const withSecrets = {
    ...status,
    mounts: status.mounts.map((mount) => ({ ...mount, auth: 'hunter2', owner: { uid: 4711, gid: 4711 } })),
    images: status.images.map((image) => ({ ...image, credentials: 'hunter2' })),
    peers: status.peers.map((peer) => ({ ...peer, addresses: ['/ip4/10.9.8.7/tcp/4100'], token: 'hunter2' })),
  }
  const view = viewOf(withSecrets, {
    run: async () => await Promise.resolve({ seeds: [{ secret: 'hunter2', hosts: [] }] }),
  })
  await view.make({ signal })
  const json = JSON.stringify(await view.make({ signal }))
  assert.match(json, /\/run\/vms\/7f3a\/root/)
  assert.doesNotMatch(json, /hunter2|10\.9\.8\.7|4711/)
})

test('nobody waits for members that are asked for seeds, and they are asked now and then only', async () => {
  let asked = 0
  let nowMs = 0
  const answer = Promise.withResolvers<{ seeds: never[] }>()
  const seeds = {
    run: async () => {
      asked++
      return await answer.promise
    },
  }
  const view = viewOf(regionStatus({ isQuiet: true }), seeds, () => nowMs)
  assert.equal((await made(view)).seeds, undefined)
  await made(view)
  assert.equal(asked, 1)
  answer.resolve({ seeds: [] })
  await answer.promise
  assert.deepEqual((await made(view)).seeds, [])
  nowMs += 15_000
  await made(view)
  assert.equal(asked, 2)
})

test('however many look at the page, the daemon makes what it shows once', async () => {
  let nowMs = 0
  let made = 0
  const view = { make: async () => await Promise.resolve({ made: ++made }) }
  const page = new StatusPage({ view }, { signal, now: () => nowMs })
  const answers = await Promise.all(Array.from({ length: 50 }, async () => await page.answer('/status.json')))
  assert.equal(made, 1)
  assert.ok(answers.every((answer) => answer?.body === '{"made":1}'))
  nowMs += 2_000
  await page.answer('/status.json')
  assert.equal(made, 2)
  assert.equal(await page.answer('/../status-page.ts'), undefined)
})

test('bytes a second are kept for twenty minutes, and no longer', async () => {
  const clock = new FakeClock()
  const totals: ByteTotals = {
    read: { local: 0, peer: 0, neighbour: 0, registry: 0 },
    fetched: { peer: 0, neighbour: 0, registry: 0 },
    sent: 0,
  }
  const history = new ByteHistory({ totals: () => structuredClone(totals), clock })
  history.start()
  assert.deepEqual(history.rates().sent, [])
  totals.sent = 5_000
  totals.read.peer = 10_000
  await clock.pass(historyStepMs)
  await clock.pass(historyStepMs)
  assert.deepEqual(history.rates().sent, [1_000, 0])
  assert.deepEqual(history.rates().read.peer, [2_000, 0])
  for (let step = 0; step < historySteps + 10; step++) await clock.pass(historyStepMs)
  assert.equal(history.rates().sent.length, historySteps)
  assert.deepEqual(new Set(history.rates().sent), new Set([0]))
  history[Symbol.dispose]()
  assert.equal(clock.waiting, 0)
})
