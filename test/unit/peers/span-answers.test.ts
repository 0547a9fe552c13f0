import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { cohortDepth, maxDepth, type SpanPlace, type SpanQuestion } from '../../../protocol/messages/span.ts'
import { SpanAnswers } from '../../../node/peers/spans/span-answers.ts'
import { SpanBook } from '../../../node/peers/spans/span-book.ts'

const table = digestOf(Buffer.from('table'))
const registry: SpanPlace = { depth: 0, member: undefined }
const question: SpanQuestion = { table, spans: [0], without: undefined }

/** A large region of cohorts whose hosts are called `COHORT NUMBER`; each cohort has one deputy, and one steward answers for all. */
function region({ isSmall = false }: { isSmall?: boolean } = {}) {
  const asked: SpanQuestion[] = []
  const gone = new Set<string>()
  const isHere = (id: string): boolean => !gone.has(id)
  const book = (): SpanBook => new SpanBook({ isHere, now: () => 0 })
  const none = { ask: async () => await Promise.resolve(undefined) }
  let isSilent = false
  const steward = new SpanAnswers({
    membership: { isSmall, cohorts: 32 },
    book: book(),
    cohortBook: book(),
    stewardsOf: () => [],
    questions: none,
  })
  const deputies = new Map<string, SpanAnswers>()
  const deputyOf = (cohort: string): SpanAnswers => {
    const known = deputies.get(cohort)
    if (known !== undefined) return known
    const ask = async (_: readonly string[], asking: SpanQuestion): Promise<SpanPlace[] | undefined> => {
      asked.push(asking)
      return isSilent ? undefined : await steward.places(`deputy of ${cohort}`, asking)
    }
    const parts = {
      membership: { isSmall: false, cohorts: 32 },
      book: book(),
      cohortBook: book(),
      stewardsOf: () => ['steward'],
    }
    const deputy = new SpanAnswers({ ...parts, questions: { ask } })
    deputies.set(cohort, deputy)
    return deputy
  }
  const place = async (id: string, { without }: { without?: string } = {}): Promise<SpanPlace> =>
    (await deputyOf(id.split(' ')[0]!).places(id, { ...question, without }))[0]!
  return { steward, place, asked, gone, silence: () => (isSilent = true) }
}

test('one member of each cohort is placed by the steward, and all others by their deputy, below it', async () => {
  const { place, asked } = region()
  const places = new Map<string, SpanPlace>()
  for (let number = 0; number < 32; number++)
    for (let cohort = 0; cohort < 32; cohort++) places.set(`c${cohort} ${number}`, await place(`c${cohort} ${number}`))
  assert.equal(asked.length, 32)
  assert.deepEqual(
    [...places].filter(([, { member }]) => member === undefined).map(([id]) => id),
    ['c0 0'],
  )
  for (const [id, { depth, member }] of places) {
    assert.ok(depth <= maxDepth)
    if (member === undefined) continue
    assert.ok(places.get(member)!.depth < depth, `${id} waits for one that is not above it`)
    if (depth >= cohortDepth) assert.equal(member.split(' ')[0], id.split(' ')[0], 'it stays in its cohort')
  }
})

test('the first of a cohort is placed anew by the steward where its member has gone, and the others stay below it', async () => {
  const { place, asked, gone } = region()
  await place('a 0')
  assert.deepEqual(await place('b 0'), { depth: 1, member: 'a 0' })
  assert.deepEqual(await place('b 1'), { depth: cohortDepth + 1, member: 'b 0' })
  gone.add('a 0')
  assert.deepEqual(await place('b 0', { without: 'a 0' }), registry)
  assert.deepEqual(asked.at(-1), { table, spans: [0], without: 'a 0', onBehalfOf: 'b 0' })
  assert.deepEqual(await place('b 1'), { depth: cohortDepth + 1, member: 'b 0' })
})

test('where no steward answers, the first of a cohort reads by itself, for all of the cohort', async () => {
  const { place, silence } = region()
  silence()
  assert.deepEqual(await place('a 0'), registry)
  assert.deepEqual(await place('a 1'), { depth: cohortDepth + 1, member: 'a 0' })
})

test('in a small region the one that is asked is the steward', async () => {
  const { steward } = region({ isSmall: true })
  assert.deepEqual(await steward.places('a', question), [registry])
  assert.deepEqual(await steward.places('b', question), [{ depth: 1, member: 'a' }])
})

test('a deputy gives a steward more time, to be connected to and to answer, the more deputies there are', async () => {
  const leastMs: number[] = []
  const book = new SpanBook({ isHere: () => true, now: () => 0 })
  for (const cohorts of [2, 256]) {
    const ask = async (_: unknown, __: unknown, options: { leastMs: number }): Promise<undefined> => {
      leastMs.push(options.leastMs)
      return await Promise.resolve(undefined)
    }
    const membership = { isSmall: false, cohorts }
    const cohortBook = new SpanBook({ isHere: () => true, now: () => 0 })
    const deputy = new SpanAnswers({ membership, book, cohortBook, stewardsOf: () => ['a'], questions: { ask } })
    await deputy.places('asker', question)
  }
  assert.deepEqual(leastMs, [208, 1224])
})
