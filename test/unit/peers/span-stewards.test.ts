import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Stream } from '@libp2p/interface'
import { digestOf } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeSpanAnswer,
  encodeSpanQuestion,
  groupSpans,
  maxLevel,
  maxSpanMessageBytes,
  parseSpanAnswer,
  spanChunks,
  type SpanPlace,
  type SpanQuestion,
} from '../../../protocol/messages/span.ts'
import type { Clock } from '../../../node/base/clock.ts'
import { silentLog } from '../../../node/base/log.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import type { Member } from '../../../node/peers/peer.ts'
import { PeerStanding } from '../../../node/peers/peer-standing.ts'
import { SpanClient } from '../../../node/peers/spans/client.ts'
import { SpanBook } from '../../../node/peers/spans/span-book.ts'
import { SpanServer } from '../../../node/peers/spans/server.ts'
import { SpanAnswers } from '../../../node/peers/spans/span-answers.ts'
import { SpanStewards } from '../../../node/peers/spans/span-stewards.ts'
import { StewardQuestions } from '../../../node/peers/spans/steward-questions.ts'
import { FakeClock, settled } from '../../support/fake-clock.ts'
import { FakeRegion, streamPair } from './fake-region.ts'

const table = digestOf(Buffer.from('table'))
const registry: SpanPlace = { depth: 0, member: undefined }

/** A member that is not connected cannot be reached. */
const reach = async (): Promise<never> => await Promise.reject(new P2pfsError('unavailable', 'no such member'))

function stewardsOf(
  order: readonly string[],
  {
    members,
    ask,
    clock,
    reached = reach,
    cohortLevel = 0,
  }: { members: Member[]; ask: SpanClient['ask']; clock: Clock; reached?: () => Promise<never>; cohortLevel?: number },
): SpanStewards {
  const membership = {
    members: () => members,
    byResponsibility: () => [...order],
    cohort: () => order,
    cohortLevel,
    reach: reached,
  }
  const { signal } = new AbortController()
  const questions = new StewardQuestions({ own: 'me', membership, client: { ask }, log: silentLog, signal, clock })
  const book = new SpanBook({ isHere: () => true, now: clock.now })
  const answers = new SpanAnswers({ books: [book], answering: () => [], questions })
  return new SpanStewards({ own: 'me', membership, questions, answers, now: clock.now })
}

/** This host, `me`, among others; `order` is that of stewards, and each says what `answers` has it say. */
function host(
  order: readonly string[],
  answers: Record<string, (question: SpanQuestion) => Promise<SpanPlace[]>> = {},
  reached: () => Promise<never> = reach,
  { cohortLevel = 0 }: { cohortLevel?: number } = {},
) {
  const clock = new FakeClock()
  const members = order
    .filter((id) => id !== 'me')
    .map((id) => ({ id, standing: new PeerStanding({ now: clock.now }) }) as Member)
  const asked: { steward: string; question: SpanQuestion }[] = []
  const ask = async (steward: string, question: SpanQuestion): Promise<SpanPlace[]> => {
    asked.push({ steward, question })
    return await (answers[steward]?.(question) ?? new Promise<never>(() => undefined))
  }
  const stewards = stewardsOf(order, { members, ask, clock, reached, cohortLevel })
  const askFor = async (index = 0, urgent = true): Promise<SpanPlace | undefined> => {
    await stewards.ask(table, index, { urgency: new Urgency(urgent) })
    return stewards.placeOf(table, index)
  }
  return { clock, members, stewards, asked, ask: askFor }
}

const sendTo =
  (member: string) =>
  async ({ spans }: SpanQuestion): Promise<SpanPlace[]> =>
    await Promise.resolve(spans.map(() => ({ depth: 1, member })))

test('a host that is alone reads by itself, and asks nobody', () => {
  const { stewards, asked } = host(['me'])
  assert.deepEqual([stewards.placeOf(table, 0), asked], [registry, []])
})

test('a host that is its own steward sends no message', async () => {
  const { ask, asked } = host(['me', 'a'])
  assert.deepEqual([await ask(), asked], [registry, []])
})

test('spans that are asked for at once are one question to the steward of their group, and each is asked for once', async () => {
  const { stewards, asked, ask } = host(['a', 'me', 'b'], { a: sendTo('b') })
  await Promise.all(Array.from({ length: groupSpans * spanChunks }, async (_, index) => await ask(index)))
  assert.deepEqual(
    asked.map(({ steward, question }) => [steward, question.spans.length]),
    [['a', groupSpans]],
  )
  assert.deepEqual(stewards.placeOf(table, 40), { depth: 1, member: 'b' })
  assert.equal(stewards.placeOf(table, groupSpans * spanChunks), undefined)
})

for (const [urgent, dueMs] of [
  [true, 250],
  [false, 3_000],
] as const)
  test(`a silent steward is passed over after ${dueMs} ms, and so is the next; then this host reads by itself, and asks neither again`, async () => {
    const { clock, ask, asked } = host(['a', 'b', 'c', 'me'])
    let place: SpanPlace | undefined
    void ask(0, urgent).then((answer) => (place = answer))
    await clock.pass(2 * dueMs - 1)
    assert.equal(place, undefined)
    await clock.pass(1)
    await settled()
    assert.deepEqual([place, asked.map(({ steward }) => steward)], [registry, ['a', 'b']])
    void ask(20 * spanChunks * groupSpans, urgent)
    await settled()
    assert.deepEqual(
      asked.slice(2).map(({ steward }) => steward),
      ['c'],
    )
  })

test('a read that joins a question gives its steward the time that it can wait, until it is sent', async () => {
  const { clock, stewards, asked } = host(['a', 'b', 'me'])
  void stewards.ask(table, 0, { urgency: new Urgency(true) })
  void stewards.ask(table, 1, { urgency: new Urgency(true), leastMs: 1_000 })
  await clock.pass(999)
  assert.deepEqual(
    asked.map(({ steward }) => steward),
    ['a'],
  )
  await clock.pass(1)
  await settled()
  assert.deepEqual(
    asked.map(({ steward }) => steward),
    ['a', 'b'],
  )
})

test('a read that somebody waits for does not wait longer for a question that nobody waited for when it was sent', async () => {
  const { clock, stewards, asked } = host(['a', 'b', 'me'])
  void stewards.ask(table, 0, { urgency: new Urgency(false) })
  await settled()
  assert.equal(asked.length, 1)
  void stewards.ask(table, 1, { urgency: new Urgency(true) })
  await clock.pass(250)
  await settled()
  assert.deepEqual(
    asked.map(({ steward }) => steward),
    ['a', 'b'],
  )
})

test('a steward that has answered anything a moment ago has a second, and one of which nothing was heard for long has not', async () => {
  for (const [agoMs, dueMs] of [
    [0, 1_000],
    [4_999, 1_000],
    [5_000, 250],
  ] as const) {
    const { clock, ask, asked, members } = host(['a', 'b', 'me'])
    for (const { standing } of members) standing.gotOn()
    await clock.pass(agoMs)
    let place: SpanPlace | undefined
    void ask().then((answer) => (place = answer))
    await clock.pass(dueMs - 1)
    assert.equal(asked.length, 1)
    await clock.pass(1)
    await settled()
    assert.equal(asked.length, 2, `${agoMs} ms ago`)
    // The next one has the usual time: one that waits for two that are gone waits no second for each.
    await clock.pass(250)
    await settled()
    assert.deepEqual(place, registry)
  }
})

for (const [cohortLevel, dueMs] of [
  [1, 310],
  [3, 470],
] as const)
  test(`a deputy that has ${cohortLevel} to ask above it has ${dueMs} ms`, async () => {
    const { clock, ask, asked } = host(['a', 'b', 'me'], {}, reach, { cohortLevel })
    void ask()
    await clock.pass(dueMs - 1)
    assert.deepEqual(
      asked.map(({ steward, question: { level } }) => [steward, level]),
      [['a', cohortLevel]],
    )
    await clock.pass(1)
    await settled()
    assert.equal(asked.length, 2)
  })

test('a member that many connect to at once may take as long as its asker says', async () => {
  for (const [leastMs, dueMs] of [
    [1_500, 1_500],
    [0, 500],
  ] as const) {
    const clock = new FakeClock()
    const membership = {
      members: () => [],
      reach: async (_: string, { signal }: { signal: AbortSignal }) =>
        await new Promise<never>((_resolve, reject) =>
          signal.addEventListener('abort', () => reject(signal.reason as Error)),
        ),
    }
    const { signal } = new AbortController()
    const client = { ask: async () => await Promise.resolve([]) }
    const questions = new StewardQuestions({ own: 'me', membership, client, log: silentLog, signal, clock })
    let isOver = false
    questions.connect('a', { leastMs }).catch(() => (isOver = true))
    await clock.pass(dueMs - 1)
    assert.equal(isOver, false)
    await clock.pass(1)
    await settled()
    assert.equal(isOver, true)
  }
})

test('what a steward says too late counts from then on', async () => {
  const late = Promise.withResolvers<SpanPlace[]>()
  const { clock, ask, stewards } = host(['a', 'me', 'b'], { a: async () => await late.promise })
  const asking = ask()
  await clock.pass(250)
  assert.deepEqual(await asking, registry)
  late.resolve([{ depth: 1, member: 'b' }])
  await settled()
  assert.deepEqual(stewards.placeOf(table, 0), { depth: 1, member: 'b' })
})

test('a steward that was passed over has the last word while the next is asked, and while its member is met', async () => {
  for (const whileMet of [false, true]) {
    const [first, second, met] = [0, 1, 2].map(() => Promise.withResolvers<SpanPlace[]>())
    const { clock, ask, stewards } = host(
      ['a', 'b', 'me', 'c'],
      { a: async () => await first!.promise, b: async () => await second!.promise },
      async () => await met!.promise.then(() => reach()),
    )
    const asking = ask()
    await clock.pass(250)
    if (whileMet) second!.resolve([{ depth: 1, member: 'far' }])
    await settled()
    first!.resolve([{ depth: 1, member: 'c' }])
    await settled()
    met!.resolve([])
    await asking
    assert.deepEqual(stewards.placeOf(table, 0), { depth: 1, member: 'c' })
    second!.resolve([registry])
    await settled()
    assert.deepEqual(stewards.placeOf(table, 0), { depth: 1, member: 'c' })
  }
})

test('a steward that refuses costs no time: the next is asked at once', async () => {
  const refuse = async (): Promise<never> => await Promise.reject(new P2pfsError('unavailable', 'gone'))
  const { ask } = host(['a', 'b', 'me', 'c'], { a: refuse, b: sendTo('c') })
  assert.deepEqual(await ask(), { depth: 1, member: 'c' })
})

test('a member that is not there, is silent, or did not deliver is reported to the steward, who names another', async () => {
  const { ask, asked, stewards, members } = host(['a', 'me', 'b', 'c'], {
    a: async ({ spans, without }) => await sendTo(without === 'b' ? 'c' : 'b')({ table, spans, without, level: 0 }),
  })
  assert.deepEqual(await ask(), { depth: 1, member: 'b' })
  members.find(({ id }) => id === 'b')!.standing.fellSilent()
  assert.equal(stewards.placeOf(table, 0), undefined)
  assert.deepEqual(await ask(), { depth: 1, member: 'c' })
  assert.equal(asked[1]!.question.without, 'b')
})

test('a steward that sends this host to itself has it read by itself', async () => {
  const { ask } = host(['a', 'me'], { a: sendTo('me') })
  assert.deepEqual(await ask(), registry)
})

test('the time for which this host was late is not counted against a steward', async () => {
  const clock = new FakeClock()
  const answer = Promise.withResolvers<SpanPlace[]>()
  let lateMs = 100
  const late = {
    now: clock.now,
    after: (ms: number, call: () => void) => {
      const by = lateMs
      lateMs = 0
      return clock.after(ms + by, call)
    },
  }
  const member = { id: 'a', standing: new PeerStanding({ now: clock.now }) } as Member
  const stewards = stewardsOf(['a', 'me'], { members: [member], ask: async () => await answer.promise, clock: late })
  let isOver = false
  void stewards.ask(table, 0, { urgency: new Urgency(true) }).then(() => (isOver = true))
  await clock.pass(301)
  assert.equal(isOver, false)
  answer.resolve([{ depth: 1, member: 'a' }])
  await settled()
  assert.deepEqual(stewards.placeOf(table, 0), { depth: 1, member: 'a' })
})

/** A steward and one client, over a stream in memory. */
function connected() {
  const region = new FakeRegion()
  const peer = region.join('a')
  const book = new SpanBook({ isHere: () => true, now: () => 0 })
  const answers = {
    places: async (asker: string, { spans, without }: SpanQuestion) =>
      await Promise.resolve(spans.map((span) => book.place(asker, table, span, without))),
  }
  const server = new SpanServer({ answers })
  const banned: string[] = []
  const streams: Stream[] = []
  const client = new SpanClient({
    host: {
      dialProtocol: async () => {
        const [near, far] = streamPair() as unknown as [Stream, Stream]
        streams.push(far)
        return await Promise.resolve(near)
      },
    },
    membership: {
      reach: async (id) => await Promise.resolve(region.membership.connectedPeer(id) as Member),
      ban: ({ id }) => void banned.push(id),
    },
    signal: new AbortController().signal,
  })
  return { client, server, book, banned, streams, peer }
}

test('questions and answers keep their order on one stream', async () => {
  const { client, server, book, streams, peer } = connected()
  book.place('x', table, 1)
  const first = client.ask('a', { table, spans: [0, 1], without: undefined, level: 0 })
  const second = client.ask('a', { table, spans: [1], without: 'x', level: 0 })
  await settled()
  assert.equal(streams.length, 1)
  void server.serve(streams[0]!, { id: 'me', source: 'me' })
  assert.equal(peer.standing.lastSignMs, -Infinity)
  assert.deepEqual(await first, [registry, { depth: 1, member: 'x' }])
  assert.ok(peer.standing.lastSignMs > -Infinity, 'an answer is a sign of life')
  // It was sent to x, which did not deliver.
  assert.deepEqual(await second, [registry])
})

for (const [what, answer] of [
  ['answers for other spans', encodeSpanAnswer([registry, registry])],
  ['sends no answer', Buffer.from('nothing')],
] as const)
  test(`a steward that ${what} is banned, and whoever asked hears of it`, async () => {
    const { client, banned, streams } = connected()
    const asking = client.ask('a', { table, spans: [0], without: undefined, level: 0 })
    await settled()
    await writeFrame(streams[0]!, [answer])
    await assert.rejects(asking, { code: 'invalid' })
    assert.deepEqual(banned, ['a'])
  })

for (const [what, question] of [
  ['too many spans', { spans: Array.from({ length: groupSpans + 1 }, (_, i) => i), level: 0 }],
  ['spans of two groups', { spans: [0, groupSpans], level: 0 }],
  ['no spans', { spans: [], level: 0 }],
  ['a level that there is not', { spans: [0], level: maxLevel + 1 }],
] as const)
  test(`who asks for ${what} breaks the protocol`, async () => {
    const { server } = connected()
    const [near, far] = streamPair() as unknown as [Stream, Stream]
    const serving = server.serve(near, { id: 'me', source: 'me' })
    await writeFrame(far, [encodeSpanQuestion({ table, without: undefined, ...question })])
    await assert.rejects(serving, { code: 'invalid' })
  })

test('a place without a member, or the registry with one, is no answer', () => {
  for (const place of [
    { depth: 1, member: undefined },
    { depth: 0, member: 'a' },
  ])
    assert.throws(() => parseSpanAnswer(encodeSpanAnswer([place])), { code: 'invalid' })
})

test('the longest messages fit their bound', () => {
  const member = 'm'.repeat(128)
  const spans = Array.from({ length: groupSpans }, (_, i) => 2 ** 32 - groupSpans + i)
  assert.ok(
    encodeSpanQuestion({ table, spans, without: member, onBehalfOf: member, level: maxLevel }).length <=
      maxSpanMessageBytes,
  )
  assert.ok(encodeSpanAnswer(spans.map(() => ({ depth: 63, member }))).length <= maxSpanMessageBytes)
})

test('a flood of questions is answered at a pace', async () => {
  const { server } = connected()
  const [near, far] = streamPair() as unknown as [Stream, Stream]
  void server.serve(near, { id: 'me', source: 'me' }).catch(() => undefined)
  const spans = Array.from({ length: groupSpans }, (_, i) => i)
  for (let i = 0; i < 1000; i++)
    await writeFrame(far, [encodeSpanQuestion({ table, spans, without: undefined, level: 0 })])
  let answers = 0
  void (async () => {
    for await (const _ of readFrames(far, maxSpanMessageBytes)) answers++
  })().catch(() => undefined)
  for (let turn = 0; turn < 100; turn++) await settled()
  assert.ok(answers >= 256 && answers < 300, `${answers} answers`)
  far.abort(new Error('over'))
})
