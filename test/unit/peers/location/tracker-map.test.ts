import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../../protocol/digest.ts'
import { bucketCount, bucketOf, TrackerMap, trackersOf } from '../../../../node/peers/location/tracker-map.ts'

const ids = (count: number): string[] => Array.from({ length: count }, (_, i) => `host-${i}`)
const keys = Array.from({ length: 2000 }, (_, i) => digestOf(Buffer.from(`key ${i}`)))

/** A roster that a test changes. */
class Members {
  current: readonly string[]
  readonly map: TrackerMap

  constructor(current: readonly string[]) {
    this.current = current
    this.map = new TrackerMap({ ids: () => this.current })
  }

  trackers(): string[][] {
    return Array.from({ length: bucketCount }, (_, bucket) => this.map.trackersOfBucket(bucket))
  }
}

test('all hosts name the same three trackers of a key, in the same order, whatever they knew before', () => {
  const grown = new Members(['host-3', 'gone'])
  grown.map.trackersOf(keys[0]!)
  for (const count of [5, 20, 40]) {
    grown.current = [...ids(count), 'gone'].toReversed()
    grown.map.trackersOf(keys[0]!)
  }
  grown.current = ids(40).toReversed()
  const fresh = new Members(ids(40))
  for (const key of keys) {
    const trackers = fresh.map.trackersOf(key)
    assert.deepEqual(grown.map.trackersOf(key), trackers)
    assert.equal(new Set(trackers).size, 3)
  }
})

test('the rule of SPEC.md stays as it is', () => {
  const { map } = new Members(ids(10))
  assert.equal(
    bucketOf(digestOf(Buffer.from('key 0'))),
    Number.parseInt(digestOf(Buffer.from('key 0')).slice(7, 15), 16) >>> 22,
  )
  assert.deepEqual(
    [0, 1, 1023].map((bucket) => map.trackersOfBucket(bucket)),
    [
      ['host-9', 'host-0', 'host-1'],
      ['host-0', 'host-7', 'host-8'],
      ['host-3', 'host-2', 'host-0'],
    ],
  )
})

test('a region of fewer members has fewer trackers, and one of none has none', () => {
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((count) => new Members(ids(count)).map.trackersOf(keys[0]!).length),
    [0, 1, 2, 3, 3],
  )
})

test('members have an equal share of the buckets', () => {
  const shares = new Map<string, number>()
  for (const trackers of new Members(ids(64)).trackers())
    for (const id of trackers) shares.set(id, (shares.get(id) ?? 0) + 1)
  const mean = (3 * bucketCount) / 64
  assert.equal(shares.size, 64)
  for (const share of shares.values()) assert.ok(share > mean / 2 && share < mean * 2, `${share} of ${mean}`)
})

test('a member that joins takes its share, and one that leaves gives its own to others: no other bucket moves', () => {
  const members = new Members(ids(50))
  const before = members.trackers()
  members.map.changes()
  members.current = [...ids(50), 'new']
  const joined = members.trackers()
  // Asking in between loses no change.
  const { added } = members.map.changes()
  const moved = joined.flatMap((trackers, bucket) => (String(trackers) === String(before[bucket]) ? [] : [bucket]))
  assert.deepEqual(
    added,
    moved.map((bucket) => ({ bucket, tracker: 'new' })),
  )
  assert.ok(moved.length > 20 && moved.length < 120, `${moved.length} buckets`)
  members.current = ids(50)
  assert.deepEqual(members.trackers(), before)
  const left = members.map.changes()
  assert.deepEqual([left.gone, left.added.length], [['new'], moved.length])
})

test('a map that begins with known trackers has no news of them, and what changes in it is its own', () => {
  const members = ids(50)
  const known = trackersOf(members)
  const roster = { current: members as readonly string[] }
  const map = new TrackerMap({ ids: () => roster.current }, known)
  assert.deepEqual(map.changes(), { added: [], gone: [] })
  assert.equal(map.trackersOf(keys[0]!).length, 3)
  roster.current = [...ids(49), 'new']
  assert.deepEqual(map.changes().gone, ['host-49'])
  const [other, fresh] = [new TrackerMap({ ids: () => members }, known), new TrackerMap({ ids: () => members })]
  for (const key of keys) assert.deepEqual(other.trackersOf(key), fresh.trackersOf(key))
})
