import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import type { Stream } from '@libp2p/interface'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeSeedAnswer,
  maxSeedMessageBytes,
  maxToldJobs,
  seedProtocol,
  type PlaceRequest,
} from '../../../protocol/messages/seed.ts'
import type { SeedProgress } from '../../../protocol/seed-job.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { SeedClient } from '../../../node/peers/seed/client.ts'
import { FakeClock, settled } from '../../support/fake-clock.ts'
import { image, makeJob, makeTarget } from '../seeds/seed-fakes.ts'
import { FakeRegion } from './fake-region.ts'
import { TestPeer, until } from './test-peer.ts'

const request: PlaceRequest = { ...image, job: '0'.repeat(32), extent: 'full', untilMs: 5 }
const job = makeJob({ targets: [makeTarget('a'), makeTarget('b', { state: 'failed', code: 'busy' })] })
const signal = new AbortController().signal

async function pair(t: TestContext): Promise<{ target: TestPeer; asker: TestPeer; targetId: string }> {
  const target = await TestPeer.start(t, 'target')
  const asker = await TestPeer.start(t, 'asker', { bootstrap: [target.address] })
  await until('they have met', () => [target, asker].every(({ network }) => network.membership.peers().length === 1))
  return { target, asker, targetId: target.network.peerId }
}

test('a target tells how far it has got, and what it has in the end', async (t) => {
  const { target, asker, targetId } = await pair(t)
  const end = Promise.withResolvers<void>()
  target.seeds.placed = async (asked, { peer, onProgress }) => {
    assert.deepEqual({ ...asked, type: undefined }, { ...request, type: undefined })
    assert.equal(peer, asker.network.peerId)
    onProgress({ held: 2, verified: 1, total: 4 })
    await end.promise
    return { held: 4, verified: 4, total: 4 }
  }
  const told: SeedProgress[] = []
  const onProgress = ({ held, verified, total }: SeedProgress): void => {
    told.push({ held, verified, total })
    end.resolve()
  }
  const { held, verified, total } = await asker.network.seeds.place(targetId, request, { signal, onProgress })
  assert.deepEqual(told, [{ held: 2, verified: 1, total: 4 }])
  assert.deepEqual([held, verified, total], [4, 4, 4])
})

test('a refusal says what the asker may do about it, and nothing else; it is no reason for a ban', async (t) => {
  const { target, asker, targetId } = await pair(t)
  for (const [code, told] of [
    ['busy', 'busy'],
    ['denied', 'denied'],
    ['missing', 'missing'],
    ['invalid', 'unavailable'],
    ['closed', 'unavailable'],
  ] as const) {
    target.seeds.placed = async () => await Promise.reject(new P2pfsError(code, 'secret'))
    target.seeds.keptJob = async () => await Promise.reject(new P2pfsError(code, 'secret'))
    const isTold = (error: unknown): boolean => isP2pfsError(error, told) && !error.message.includes('secret')
    const { seeds } = asker.network
    await assert.rejects(seeds.place(targetId, request, { signal, onProgress: () => undefined }), isTold)
    await assert.rejects(seeds.keep(targetId, job, { signal }), isTold)
  }
  assert.equal(asker.network.membership.peers().length, 1)
})

test('a target ends its work when the asker goes away', async (t) => {
  const { target, asker, targetId } = await pair(t)
  const ended = Promise.withResolvers<void>()
  target.seeds.placed = async (_request, { signal }) => {
    signal.addEventListener('abort', () => ended.resolve())
    return await new Promise<never>(() => undefined)
  }
  const abort = new AbortController()
  const placed = asker.network.seeds.place(targetId, request, { signal: abort.signal, onProgress: () => abort.abort() })
  await assert.rejects(placed, { name: 'AbortError' })
  await ended.promise
})

test('members keep, tell and release jobs', async (t) => {
  const { target, asker, targetId } = await pair(t)
  const { seeds } = asker.network
  const newer = { ...job, revision: 7 }
  target.seeds.keptJob = async (kept, peer) => {
    assert.deepEqual([kept, peer], [job, asker.network.peerId])
    return await Promise.resolve(newer)
  }
  assert.deepEqual(await seeds.keep(targetId, job, { signal }), newer)
  target.seeds.jobs = () => Array.from({ length: maxToldJobs + 1 }, () => job)
  assert.equal((await seeds.jobs(targetId, { signal })).length, maxToldJobs)
  const released: string[] = []
  target.seeds.released = async (id) => void (await Promise.resolve(released.push(id)))
  await seeds.release(targetId, job.id, { signal })
  assert.deepEqual(released, [job.id])
})

test('a member that breaks the protocol is banned, one that falls silent is given up', async () => {
  for (const [answer, isBanned] of [
    [Buffer.from('nonsense'), true],
    [encodeSeedAnswer({ type: 'progress', held: 5, verified: 5, total: 4 }), true],
    [encodeSeedAnswer({ type: 'progress', held: 3, verified: 4, total: 4 }), true],
    [undefined, false],
  ] as const) {
    const clock = new FakeClock()
    const region = new FakeRegion({ clock })
    const peer = region.join('liar')
    region.serve = async (stream: Stream, _peer, protocol) => {
      assert.equal(protocol, seedProtocol)
      for await (const _ of readFrames(stream, maxSeedMessageBytes))
        if (answer !== undefined) await writeFrame(stream, [answer])
    }
    const client = new SeedClient({ host: region.host, membership: region.membership, clock })
    const placed = client.place(peer.id, request, { signal, onProgress: () => undefined })
    const failed = assert.rejects(placed, (error) => isP2pfsError(error, isBanned ? 'invalid' : 'timeout'))
    await settled()
    await clock.pass(10_000)
    await failed
    assert.deepEqual(region.banned, isBanned ? ['liar'] : [])
  }
})

test('a target that floods the asker with progress is banned', async () => {
  const clock = new FakeClock()
  const region = new FakeRegion({ clock })
  const peer = region.join('flooder')
  const progress = encodeSeedAnswer({ type: 'progress', held: 0, verified: 0, total: 4 })
  region.serve = async (stream: Stream) => {
    for await (const _ of readFrames(stream, maxSeedMessageBytes))
      for (let i = 0; i < 100; i++) await writeFrame(stream, [progress])
  }
  const client = new SeedClient({ host: region.host, membership: region.membership, clock })
  let told = 0
  await assert.rejects(client.place(peer.id, request, { signal, onProgress: () => told++ }), (error) =>
    isP2pfsError(error, 'invalid'),
  )
  assert.deepEqual([told, region.banned], [32, ['flooder']])
})
