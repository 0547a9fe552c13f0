import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { haveParts } from '../../../protocol/messages/region.ts'
import { spanChunks, SpanReaders } from '../../../node/peers/span-readers.ts'
import { FakeRegion } from './fake-region.ts'

const table = digestOf(Buffer.from('table'))
const count = 100 * spanChunks

/** A region of these members; those that track the segment have told so. */
function region(tracking: readonly string[], others: readonly string[] = []) {
  const fake = new FakeRegion()
  const { membership } = fake
  const peers = new Map([...tracking, ...others].map((id) => [id, fake.join(id)]))
  for (const id of tracking)
    for (const part of haveParts(table, new Bitmap(count))) peers.get(id)!.holdings.take(part, count)
  return { membership, peers }
}

test('a host reads for itself where no other member tracks the segment', () => {
  const { membership } = region([], ['a', 'b'])
  assert.equal(new SpanReaders({ own: 'me', membership }).readerOf(table, 0), undefined)
})

test('all hosts name the same reader of a chunk, whose neighbours in its span have the same; each has a share', () => {
  const ids = ['a', 'b', 'c', 'd']
  const readers = ids.map((own) => {
    const { membership } = region(
      ids.filter((id) => id !== own),
      ['uninterested'],
    )
    const spans = new SpanReaders({ own, membership })
    return (index: number) => spans.readerOf(table, index) ?? own
  })
  const shares = new Map<string, number>()
  for (let first = 0; first < count; first += spanChunks) {
    const named = new Set(readers.flatMap((readerOf) => [readerOf(first), readerOf(first + spanChunks - 1)]))
    assert.equal(named.size, 1)
    const [reader] = [...named]
    shares.set(reader!, (shares.get(reader!) ?? 0) + 1)
  }
  assert.deepEqual([...shares.keys()].toSorted(), ids)
  // A fair draw of 100 has a standard deviation of 4.3.
  assert.ok(
    [...shares.values()].every((share) => share > 5),
    JSON.stringify([...shares]),
  )
})

for (const [what, disgrace] of [
  ['is silent', 'fellSilent'],
  ['has failed', 'failed'],
] as const)
  test(`a member that ${what} is passed over`, () => {
    const { membership, peers } = region(['a'])
    const spans = new SpanReaders({ own: 'me', membership })
    const ofA = Array.from({ length: 100 }, (_, span) => span * spanChunks).filter(
      (index) => spans.readerOf(table, index) === 'a',
    )
    assert.ok(ofA.length > 20)
    peers.get('a')!.standing[disgrace]()
    assert.ok(ofA.every((index) => spans.readerOf(table, index) === undefined))
  })
