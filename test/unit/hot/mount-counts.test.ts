import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SeedImage } from '../../../protocol/seed-job.ts'
import { hotLimits } from '../../../node/hot/hot-limits.ts'
import { MountCounts, type MountCount } from '../../../node/hot/mount-counts.ts'
import { image } from '../seeds/seed-fakes.ts'

const named = (name: string): SeedImage => ({ ...image, reference: name })

class Counts {
  nowMs = 0
  readonly counts: MountCounts

  constructor(limits: Partial<typeof hotLimits> = {}) {
    this.counts = new MountCounts({ now: () => this.nowMs }, { ...hotLimits, ...limits })
  }

  of(name: string): number {
    return this.entry(name)?.mounts ?? 0
  }

  entry(name: string): MountCount | undefined {
    return this.counts.list().find(({ image }) => image.reference === name)
  }
}

test('a mount counts half after the half-life, and is forgotten in the end', () => {
  const counts = new Counts({ halfLifeMs: 1000 })
  counts.counts.add(named('a'), 1, 'x')
  counts.counts.add(named('a'), 1, 'y')
  assert.equal(counts.of('a'), 2)
  counts.nowMs = 1000
  assert.equal(counts.of('a'), 1)
  counts.counts.add(named('a'), 1, 'x')
  assert.deepEqual(counts.counts.list(), [{ image: named('a'), mounts: 2, hosts: 2 }])
  counts.nowMs = 10_000
  assert.deepEqual(counts.counts.list(), [])
  assert.equal(counts.counts.size, 0)
})

test('one source alone makes no image hot, however often it tells of it', () => {
  const counts = new Counts()
  for (let i = 0; i < 1000; i++) counts.counts.add(named('a'), 1_000_000, 'liar')
  assert.ok(counts.of('a') <= hotLimits.perSource)
  assert.ok(hotLimits.perSource < hotLimits.hot)
})

test('counts are bounded: a source that floods pushes out its own, and the lightest goes first', () => {
  const counts = new Counts({ images: 10, imagesPerSource: 4, sources: 3 })
  for (const source of ['x', 'y']) counts.counts.add(named('honest'), 1, source)
  counts.nowMs = 60_000
  for (let i = 0; i < 100; i++) counts.counts.add(named(`flood ${i}`), 1, 'liar')
  assert.equal(counts.counts.size, 5)
  assert.ok(counts.of('honest') > 1)
  for (let i = 0; i < 30; i++) counts.counts.add(named(`more ${i}`), 2, `source ${i}`)
  assert.equal(counts.counts.size, 10)
  // No more sources of an image are counted than its copies need.
  for (let i = 0; i < 30; i++) counts.counts.add(named('wide'), 2, `source ${i}`)
  assert.equal(counts.entry('wide')?.hosts, 3)
})

test('what a tag stands for now is as hot as what it stood for, and no hotter', () => {
  const counts = new Counts()
  const [from, to] = [named('from'), named('to')]
  for (const source of ['x', 'y']) counts.counts.add(from, 2, source)
  counts.counts.inherit(from, to)
  counts.counts.inherit(from, to)
  assert.deepEqual([counts.of('from'), counts.of('to')], [4, 4])
})
