import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { levelDepths, maxDepth, maxLevel, type SpanPlace, type SpanQuestion } from '../../../protocol/messages/span.ts'
import { SpanAnswers } from '../../../node/peers/spans/span-answers.ts'
import { SpanBook } from '../../../node/peers/spans/span-book.ts'

const table = digestOf(Buffer.from('table'))
const registry: SpanPlace = { depth: 0, member: undefined }

/** The part of a level in which a host is that is called `COHORT NUMBER`: three bits of the cohort's for each level. */
const partOf = (id: string, level: number): string => id.split(' ')[0]!.slice(0, 3 * level)

/**
 * A large region of cohorts that are named by their bits, whose hosts are called `COHORT NUMBER`. Each part of each level has one
 * deputy, and one steward answers for all.
 */
function region(cohortBits: number) {
  const cohortLevel = Math.ceil(cohortBits / 3)
  const asked: { of: string; question: SpanQuestion }[] = []
  const leastMs: number[] = []
  const gone = new Set<string>()
  const silent = new Set<string>()
  const isHere = (id: string): boolean => !gone.has(id)
  const deputies = new Map<string, SpanAnswers>()
  /** The deputy of a part, by the bits of that; the steward is the one without bits. */
  const deputyOf = (bits: string): SpanAnswers => {
    const known = deputies.get(bits)
    if (known !== undefined) return known
    const deputy = new SpanAnswers({
      books: Array.from({ length: maxLevel + 1 }, () => new SpanBook({ isHere, now: () => 0 })),
      answering: (level) => [partOf(bits, level)],
      questions: {
        ask: async ([of], question, options): Promise<SpanPlace[] | undefined> => {
          asked.push({ of: of!, question })
          leastMs.push(options.leastMs)
          return silent.has(of!) ? undefined : await deputyOf(of!).places(`deputy of ${bits}`, question)
        },
      },
    })
    deputies.set(bits, deputy)
    return deputy
  }
  const place = async (id: string, { without }: { without?: string } = {}): Promise<SpanPlace> => {
    const question = { table, spans: [0], without, level: cohortLevel }
    const [place] = await deputyOf(partOf(id, cohortLevel)).places(id, question)
    return place!
  }
  const cohorts = Array.from({ length: 2 ** cohortBits }, (_, i) => i.toString(2).padStart(cohortBits, '0'))
  return { place, cohorts, asked, leastMs, gone, silent }
}

for (const bits of [1, 3, 5, 8])
  test(`of ${2 ** bits} cohorts one reads, and no deputy or steward is asked by more than eight others`, async () => {
    const { place, cohorts, asked } = region(bits)
    const places = new Map<string, SpanPlace>()
    for (let number = 0; number < 6; number++)
      for (const cohort of cohorts) places.set(`${cohort} ${number}`, await place(`${cohort} ${number}`))
    const questions = Object.groupBy(asked, ({ of }) => of)
    for (const [of, some] of Object.entries(questions))
      assert.ok(some!.length <= 8, `${of} is asked ${some!.length} times`)
    assert.ok(asked.length < 2 * cohorts.length)
    assert.deepEqual(
      [...places].filter(([, { member }]) => member === undefined).map(([id]) => id),
      [`${cohorts[0]} 0`],
    )
    for (const [id, { depth, member }] of places) {
      assert.ok(depth <= maxDepth)
      if (member === undefined) continue
      assert.ok(places.get(member)!.depth < depth, `${id} waits for one that is not above it`)
      const level = Math.floor(depth / levelDepths)
      assert.equal(partOf(member, level), partOf(id, level), 'it stays in its part')
    }
  })

test('the first of a cohort is placed anew by the larger part where its member has gone, and the others stay below it', async () => {
  const { place, asked, gone } = region(3)
  await place('000 0')
  assert.deepEqual(await place('001 0'), { depth: 1, member: '000 0' })
  assert.deepEqual(await place('001 1'), { depth: levelDepths + 1, member: '001 0' })
  gone.add('000 0')
  assert.deepEqual(await place('001 0', { without: '000 0' }), registry)
  assert.deepEqual(asked.at(-1)!.question, { table, spans: [0], without: '000 0', onBehalfOf: '001 0', level: 0 })
  assert.deepEqual(await place('001 1'), { depth: levelDepths + 1, member: '001 0' })
})

test('where nobody answers, the first of a part reads by itself, for all of the part', async () => {
  const { place, silent } = region(6)
  silent.add('')
  assert.deepEqual(await place('000000 0'), registry)
  assert.deepEqual(await place('000000 1'), { depth: 2 * levelDepths + 1, member: '000000 0' })
  assert.deepEqual(await place('000001 0'), { depth: levelDepths + 1, member: '000000 0' })
  assert.deepEqual(await place('111111 0'), registry)
})

test('a deputy gives the next one less time than it has itself, however many cohorts there are', async () => {
  const { place, leastMs } = region(8)
  await place('00000000 0')
  assert.deepEqual(leastMs, [390, 310, 230])
})
