import assert from 'node:assert/strict'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import type { Stream } from '@libp2p/interface'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { encodeLayerIndex } from '../../../protocol/layer-index.ts'
import { encodeObjectAnswer, encodeObjectComing, maxObjectRequestBytes } from '../../../protocol/messages/object.ts'
import { encodeRootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { silentLog } from '../../../node/base/log.ts'
import { RegionAnswers } from '../../../node/layers/region-answers.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { RegionObjects } from '../../../node/peers/object/region-objects.ts'
import { standings } from '../../../node/peers/peer-standing.ts'
import type { Peer } from '../../../node/peers/peer.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { FakeRegion } from './fake-region.ts'

const { signal } = new AbortController()
const diffId = digestOf(Buffer.from('tar'))
const table = new ChunkTable([4096], digestToBytes(digestOf(Buffer.alloc(4096))))
const index = encodeLayerIndex({ diffId, tarBytes: 1024, chunks: table, entries: [] })
const manifest = encodeRootfsManifest({ format: 'ext4', metadata: table, layers: [], config: '{}' })
const image = { reference: 'r', platform: 'p', format: 'ext4' } as const

/** How a member answers one question. */
type Script = (stream: Stream, sleep: (ms: number) => Promise<void>) => Promise<void>

const silent: Script = async () => await Promise.resolve()
const no: Script = async (stream) => await writeFrame(stream, [encodeObjectAnswer(undefined)])
const breaksOff: Script = async (stream) => await stream.close()
const yes =
  (object: Uint8Array): Script =>
  async (stream) =>
    await writeFrame(stream, [encodeObjectAnswer(object)])
const hasIndex = yes(zstdCompressSync(index))
const hasManifest = yes(manifest)
const garbage: Script = async (stream) => await writeFrame(stream, [Buffer.from([7, 7, 7])])
/** Sends an answer in pieces. */
const atRate =
  (object: Uint8Array, { bytes, everyMs }: { bytes: number; everyMs: number }): Script =>
  async (stream, sleep) => {
    const answer = encodeObjectAnswer(object)
    const length = []
    for (let rest = answer.length; rest > 0; rest >>>= 7) length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    const frame = Buffer.concat([Uint8Array.from(length), answer])
    for (let at = 0; at < frame.length; at += bytes) {
      await sleep(everyMs)
      stream.send(frame.subarray(at, at + bytes))
    }
  }

interface Lab {
  clock: FakeClock
  region: FakeRegion
  objects: RegionObjects
  answers: RegionAnswers
  peers: Record<string, Peer>
  scripts: Record<string, Script>
  /** Questions that each member has got, by its id. */
  asked: Record<string, number>
  /** Runs a task, and lets time pass until it has ended. */
  timed: <T>(task: Promise<T>) => Promise<{ value?: T; error?: P2pfsError; ms: number }>
}

function lab(scripts: Record<string, Script>): Lab {
  const clock = new FakeClock()
  const region = new FakeRegion({ clock })
  const peers = Object.fromEntries(Object.keys(scripts).map((id) => [id, region.join(id)]))
  const asked = Object.fromEntries(Object.keys(scripts).map((id) => [id, 0]))
  const sleep = async (ms: number): Promise<void> => await new Promise((resolve) => void clock.after(ms, resolve))
  region.serve = async (stream, id) => {
    for await (const request of readFrames(stream, maxObjectRequestBytes)) {
      assert.ok(request.length > 0)
      asked[id]!++
      await scripts[id]!(stream, sleep)
    }
  }
  const { membership, host } = region
  const objects = new RegionObjects({ host, membership, log: silentLog, clock })
  const answers = new RegionAnswers({ region: objects, membership, log: silentLog, now: clock.now })
  const timed: Lab['timed'] = async (task) => {
    const startMs = clock.now()
    let result: Awaited<ReturnType<Lab['timed']>> | undefined
    task.then(
      (value) => (result = { value, ms: clock.now() - startMs }),
      (error: P2pfsError) => (result = { error, ms: clock.now() - startMs }),
    )
    for (let i = 0; result === undefined && i < 100_000; i++) await clock.pass(5)
    return result as never
  }
  return { clock, region, objects, answers, peers, scripts, asked, timed }
}

const many = (count: number, script: Script): Record<string, Script> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`m${i}`, script]))

for (const count of [1, 2, 7, 50]) {
  test(`${count} silent members: all that a mount asks the region takes less than 3 s, and later questions 0.3 s`, async () => {
    const { objects, timed } = lab({ ...many(count, silent), honest: no })
    let ms = 0
    for (const question of [
      async () => await objects.findImages(image, { signal }),
      async () => await objects.findImages({ ...image, format: 'erofs' }, { signal }),
      async () => await objects.findImages(image, { signal }),
      async () => await objects.findImport(diffId, { signal }),
      async () => await objects.fetchLayerIndex(diffId, { signal }),
      async () => await objects.fetchRootfs(diffId, { signal }),
    ])
      ms += (await timed(question() as Promise<unknown>)).ms
    assert.ok(ms < 3_000, `${ms} ms`)
    const { ms: laterMs } = await timed(objects.findImages(image, { signal }))
    assert.ok(laterMs <= 330, `${laterMs} ms`)
  })

  test(`${count} silent members do not keep an object from whoever has it`, async () => {
    const { objects, timed } = lab({ ...many(count, silent), honest: hasManifest })
    const { value, ms } = await timed(objects.fetchRootfs(digestOf(manifest), { signal }))
    assert.equal(value?.metadata.id, table.id)
    assert.ok(ms <= 2_500, `${ms} ms`)
    const again = await timed(objects.fetchRootfs(digestOf(manifest), { signal }))
    assert.ok(again.ms <= 320, `${again.ms} ms`)
  })
}

test('a member that is named first and stops costs 0.3 s', async () => {
  const { objects, timed } = lab({ a: hasManifest, b: silent })
  const { value, ms } = await timed(objects.fetchRootfs(digestOf(manifest), { signal, first: 'b' }))
  assert.ok(value !== undefined && ms <= 330, `${ms} ms`)
})

test('where members were slow before, five that fall silent keep a read no longer than 2.6 s from the answer of the region', async () => {
  const slowNo: Script = async (stream, sleep) => {
    await sleep(900)
    await no(stream, sleep)
  }
  const { answers, objects, timed, scripts, clock } = lab({ ...many(5, slowNo), honest: slowNo })
  for (let i = 0; i < 4; i++) await timed(objects.findImages(image, { signal }))
  for (const id of Object.keys(scripts)) scripts[id] = id === 'honest' ? no : silent
  await clock.pass(1_000)
  const { error, ms } = await timed(answers.blobMap(diffId, signal))
  assert.equal(error, undefined)
  assert.ok(ms <= 2_600, `${ms} ms`)
})

test('a member that lost to another is watched on: when it never begins to answer it is known as silent', async () => {
  const { objects, timed, clock, peers } = lab({ a: hasManifest, b: silent })
  await timed(objects.fetchRootfs(digestOf(manifest), { signal, first: 'b' }))
  assert.equal(peers['b']!.standing.isSilent, false)
  await clock.pass(1_000)
  assert.deepEqual([peers['a']!.standing.isSilent, peers['b']!.standing.isSilent], [false, true])
})

test('a no of all members that are awake is the answer of the region, whoever else is silent', async () => {
  const { answers, timed } = lab({ ...many(3, silent), honest: no, other: no })
  const first = await timed(answers.layerIndex(diffId, signal))
  assert.deepEqual([first.error, first.value], [undefined, undefined])
  assert.ok(first.ms <= 3_000, `${first.ms} ms`)
  const second = await timed(answers.layerIndex(diffId, signal))
  assert.equal(second.error, undefined)
  assert.ok(second.ms <= 330, `${second.ms} ms`)
})

test('where all members are silent nobody has answered', async () => {
  const { answers, timed } = lab(many(3, silent))
  for (let i = 0; i < 3; i++) {
    const { error, ms } = await timed(answers.layerIndex(diffId, signal))
    assert.equal(error?.code, 'unavailable')
    assert.ok(ms <= 3_000, `${ms} ms`)
  }
})

test('a member that breaks off has not answered, and the next time counts as silent', async () => {
  const { answers, timed } = lab({ a: breaksOff, b: no })
  assert.equal((await timed(answers.layerIndex(diffId, signal))).error?.code, 'unavailable')
  assert.equal((await timed(answers.layerIndex(diffId, signal))).error, undefined)
})

test('a member that fell silent and has the object is asked again where all others say no', async () => {
  const { objects, timed, scripts, peers } = lab({ a: silent, b: no })
  await timed(objects.fetchLayerIndex(diffId, { signal }))
  assert.equal(peers['a']!.standing.isSilent, true)
  scripts['a'] = hasIndex
  const { value } = await timed(objects.fetchLayerIndex(diffId, { signal }))
  assert.equal(value?.diffId, diffId)
  assert.equal(peers['a']!.standing.isSilent, false, 'it has answered in time')
})

test('a blob that its member still reads is waited for, as long as the asker likes, and the member is not silent', async () => {
  const blob = Buffer.alloc(1000, 7)
  const reads: Script = async (stream, sleep) => {
    await writeFrame(stream, [encodeObjectComing()])
    await sleep(2_500)
    await writeFrame(stream, [encodeObjectAnswer(blob)])
  }
  const { objects, timed, peers } = lab({ a: reads, b: no })
  const { value, ms } = await timed(objects.fetchBlob(digestOf(blob), 'a', { signal }))
  assert.deepEqual([Buffer.from(value!), ms >= 2_500, peers['a']!.standing.isSilent], [blob, true, false])
  assert.equal((await timed(objects.fetchBlob(digestOf(blob), 'b', { signal }))).value, undefined)
  assert.equal((await timed(objects.fetchBlob(digestOf(blob), 'gone', { signal }))).value, undefined)
  const other = await timed(objects.fetchBlob(digestOf(Buffer.from('other')), 'a', { signal }))
  assert.equal(other.error?.code, 'invalid', 'a member that sends another blob')
})

test('what a registry said, as a member tells, is taken as it is', async () => {
  const said = Buffer.from('a list')
  const { objects, timed, region } = lab({ a: async (stream) => await writeFrame(stream, [encodeObjectAnswer(said)]) })
  const { value } = await timed(objects.fetchBlob(diffId, 'a', { signal, isNamedByDigest: false }))
  assert.deepEqual(Buffer.from(value!), said)
  assert.equal(region.membership.members().length, 1)
})

test('a member that says that a blob is coming, and no more, has its stream ended when the asker gives up', async () => {
  let hasEnded = false
  const promises: Script = async (stream) => {
    stream.addEventListener('close', () => (hasEnded = true))
    await writeFrame(stream, [encodeObjectComing()])
  }
  const { objects, clock } = lab({ a: promises })
  const late = new AbortController()
  const asking = objects.fetchBlob(diffId, 'a', { signal: late.signal })
  await clock.pass(10_000)
  late.abort(new P2pfsError('timeout', 'too late'))
  await assert.rejects(asking, { code: 'timeout' })
  await clock.pass(10)
  assert.equal(hasEnded, true)
})

test('a member that says of anything but a blob that it is coming breaks the protocol', async () => {
  const { objects, timed, region } = lab({ a: async (stream) => await writeFrame(stream, [encodeObjectComing()]) })
  await timed(objects.fetchLayerIndex(diffId, { signal }))
  assert.deepEqual(region.membership.members(), [])
})

test('a member that drips 1 KB/s counts as silent, and others are asked meanwhile', async () => {
  const drips = atRate(Buffer.alloc(1 << 20), { bytes: 100, everyMs: 100 })
  const { objects, timed } = lab({ a: drips, b: drips, c: hasManifest })
  const { value, ms } = await timed(objects.fetchRootfs(digestOf(manifest), { signal }))
  assert.ok(value !== undefined && ms <= 1_000, `${ms} ms`)
  const alone = lab({ a: drips, b: no })
  const found = await alone.timed(alone.objects.findImages(image, { signal }))
  assert.ok(found.value?.length === 0 && found.ms <= 3_300, `${found.ms} ms`)
  assert.equal(alone.peers['a']!.standing.isSilent, true)
  const again = await alone.timed(alone.objects.findImages(image, { signal }))
  assert.ok(again.ms <= 3_300)
  const large = lab({ a: drips, b: no })
  const manifestOfNobody = await large.timed(large.objects.fetchRootfs(diffId, { signal }))
  assert.ok(manifestOfNobody.value === undefined && manifestOfNobody.ms <= 3_300, `${manifestOfNobody.ms} ms`)
})

test('a large answer over a slow link is judged by how it gets on, not by its time', async () => {
  // 25 MiB at 25 Mbit/s, in pieces of 64 KiB.
  const big = zstdCompressSync(Buffer.alloc(16))
  const { objects, timed, region } = lab({
    a: atRate(Buffer.concat([big, Buffer.alloc(25 << 20)]), { bytes: 64 << 10, everyMs: 21 }),
    b: no,
  })
  const { ms } = await timed(objects.fetchLayerIndex(diffId, { signal }))
  assert.ok(ms > 8_000, `${ms} ms`)
  assert.deepEqual(region.banned, ['a'], 'it has come whole: what it says is wrong')
})

test('a member that answers with garbage is banned, and costs the lookup nothing', async () => {
  const { objects, timed, region } = lab({ a: garbage, b: hasManifest })
  const { value, ms } = await timed(objects.fetchRootfs(digestOf(manifest), { signal, first: 'a' }))
  assert.ok(value !== undefined && ms <= 50, `${ms} ms`)
  assert.deepEqual(region.banned, ['a'])
})

test('a member that is silent for objects is responsible for no import, until it answers', async () => {
  const { objects, timed, region, scripts, peers } = lab({ a: silent, b: no })
  await timed(objects.findImport(diffId, { signal }))
  assert.equal(region.membership.byResponsibility('key').includes('a'), false)
  scripts['a'] = no
  await timed(objects.findImport(diffId, { signal }))
  assert.equal(region.membership.byResponsibility('key').includes('a'), true)
  assert.equal(peers['a']!.standing.current, standings.unproven)
})

test('boot profiles are asked of members that are awake', async () => {
  const { objects, timed, asked } = lab({ a: silent, b: no })
  await timed(objects.findImages(image, { signal }))
  const before = asked['a']
  const answers = objects.askProfiles({ rootfs: diffId, sketch: [] }, [], { signal })
  const { ms } = await timed(Promise.all(answers))
  assert.ok(ms <= 50, `${ms} ms`)
  assert.equal(asked['a'], before)
})

test('a lookup that is given up ends at once', async () => {
  const { objects, clock } = lab({ a: silent })
  const abort = new AbortController()
  const ended = assert.rejects(objects.findImages(image, { signal: abort.signal }), { name: 'AbortError' })
  await clock.pass(100)
  abort.abort()
  await ended
})
