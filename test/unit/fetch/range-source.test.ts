import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { FetchChunk } from '../../../node/model/chunk-request.ts'
import { RangeSource } from '../../../node/fetch/range-source.ts'
import type { BlobRange, SeekableSegment } from '../../../node/layers/seekable-segment.ts'
import { HeldByPeerError, type SourceOptions } from '../../../node/fetch/source.ts'
import type { WholeReadReason } from '../../../node/model/whole-read.ts'
import { FakeSource } from './fake-source.ts'
import { bytesOf } from './source-suite.ts'
import { silentLog } from '../../../node/base/log.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { createRandom } from '../../support/random.ts'

const chunkBytes = 4096
const { signal } = new AbortController()
const never: FetchChunk = async () => await Promise.reject(new Error('no other chunk is needed'))

interface Lab {
  /** Nobody waits for it yet, unless an urgency says so. */
  chunk: (
    index: number,
    options?: { signal?: AbortSignal; urgency?: Urgency; isHeld?: () => boolean },
  ) => Promise<Uint8Array>
  contents: Buffer[]
  reads: { range: BlobRange; again: boolean }[]
  kept: Set<Digest>
  streamed: number[]
  /** Why chunks were streamed. */
  reasons: (string | undefined)[]
  /** How often a segment was found to be read at random. */
  overcome: number
}

/** A segment of `count` chunks, the last all zero; a read decodes whole groups of four. */
function lab(
  count: number,
  {
    read,
    gate,
    seekable,
    now = Date.now,
  }: {
    read?: (bytes: Buffer, again: boolean) => Buffer
    gate?: (signal: AbortSignal) => Promise<void>
    /** The segment where not given. */
    seekable?: () => Promise<undefined>
    now?: () => number
  } = {},
): Lab {
  const random = createRandom(2)
  const contents = Array.from({ length: count }, (_, i) =>
    i === count - 1 ? Buffer.alloc(chunkBytes) : Buffer.from(random.bytes(chunkBytes)),
  )
  const digests = contents.map((bytes) => digestOf(bytes))
  const table = new ChunkTable(
    contents.map(() => chunkBytes),
    new Uint8Array(Buffer.concat(digests.map(digestToBytes))),
  )
  const made: Omit<Lab, 'chunk' | 'contents'> = { reads: [], kept: new Set(), streamed: [], reasons: [], overcome: 0 }
  const group = (index: number): BlobRange => {
    const start = Math.floor(index / 4) * 4 * chunkBytes
    return { start, end: start + 4 * chunkBytes, tarStart: start, tarEnd: start + 4 * chunkBytes }
  }
  const segment: SeekableSegment = {
    table,
    rangeOf: (index) => (index === count - 1 ? undefined : group(index)),
    join: (first, last) => ({ start: first.start, end: last.end, tarStart: first.tarStart, tarEnd: last.tarEnd }),
    read: async (range, { again, signal: given }) => {
      made.reads.push({ range, again })
      await gate?.(given)
      await new Promise((resolve) => setImmediate(resolve))
      const from = range.start / chunkBytes
      return contents
        .slice(from, range.end / chunkBytes)
        .map((bytes, i) => ({ index: from + i, bytes: read?.(bytes, again) ?? bytes }))
    },
  }
  const parts = {
    layers: { seekable: seekable ?? (async () => segment) },
    stream: new FakeSource(async ({ index }, { reason }: SourceOptions & { reason?: WholeReadReason }) => {
      made.streamed.push(index)
      made.reasons.push(reason)
      return contents[index]
    }),
    wholeReads: { overcome: () => void made.overcome++ },
    inventory: {
      put: async (digest: Digest) => {
        made.kept.add(digest)
        return true
      },
    },
    signal,
    log: silentLog,
  }
  const source = new RangeSource(parts, { now })
  return Object.assign(made, {
    contents,
    chunk: async (index: number, options?: Parameters<Lab['chunk']>[1]) =>
      bytesOf(
        await source.fetch(
          { digest: digests[index]!, lengthBytes: chunkBytes, table: table.id, index },
          { signal, urgency: new Urgency(false), fetchChunk: never, ...options },
        ),
      ),
  })
}

test('a chunk costs one read, and all that comes of it is kept', async () => {
  const { chunk, contents, reads, kept } = lab(40)
  assert.deepEqual(await chunk(9), contents[9])
  assert.deepEqual(
    reads.map(({ range }) => [range.start, range.end]),
    [[8 * chunkBytes, 12 * chunkBytes]],
  )
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(kept.size, 3, 'the chunk itself is for whoever asked')
})

test('chunks that are wanted together and lie together are read together', async () => {
  const { chunk, contents, reads } = lab(400)
  const wanted = [3, 4, 5, 6, 7, 8, 9, 200, 201, 11]
  const found = await Promise.all(wanted.map(async (index) => await chunk(index)))
  assert.deepEqual(
    found,
    wanted.map((index) => contents[index]),
  )
  assert.equal(reads.length, 2)
})

test('a small gap is read too, a larger one is not', async () => {
  const { chunk, contents, reads } = lab(400)
  const wanted = [100, 110, 150]
  assert.deepEqual(
    await Promise.all(wanted.map((index) => chunk(index))),
    wanted.map((index) => contents[index]),
  )
  assert.deepEqual(
    reads.map(({ range }) => [range.start / chunkBytes, range.end / chunkBytes]),
    [
      [100, 112],
      [148, 152],
    ],
  )
})

test('one read is no longer than its bound', async () => {
  const count = 4200
  const { chunk, reads } = lab(count + 1)
  await Promise.all(Array.from({ length: count }, (_, i) => chunk(i)))
  assert.ok(reads.length >= 2)
  for (const { range } of reads) assert.ok(range.tarEnd - range.tarStart <= 16 * 1024 * 1024)
})

test('a chunk of zeros is made, not read', async () => {
  const { chunk, contents, reads } = lab(9)
  assert.deepEqual(Buffer.from(await chunk(8)), contents[8])
  assert.equal(reads.length, 0)
})

test('wrong bytes are asked for once more; if they stay wrong, the layer is streamed', async () => {
  const spoil = (bytes: Buffer): Buffer => Buffer.concat([Buffer.from('!'), bytes.subarray(1)])
  const once = lab(20, { read: (bytes, again) => (again ? bytes : spoil(bytes)) })
  assert.deepEqual(await once.chunk(5), once.contents[5])
  assert.deepEqual([once.reads.map(({ again }) => again), once.streamed], [[false, true], []])
  const always = lab(20, { read: spoil })
  assert.deepEqual(await always.chunk(5), always.contents[5])
  assert.deepEqual([always.reads.length, always.streamed], [2, [5]])
  assert.equal(always.kept.size, 0)
})

test('a registry without ranges is streamed from for a while, then read at random again', async () => {
  let nowMs = 0
  let hasRanges = false
  const refusing = lab(20, {
    now: () => nowMs,
    read: (bytes) => {
      if (!hasRanges) throw new P2pfsError('unsupported', 'no ranges')
      return bytes
    },
  })
  for (const index of [2, 9]) assert.deepEqual(await refusing.chunk(index), refusing.contents[index])
  assert.deepEqual([refusing.reads.length, refusing.streamed], [1, [2, 9]])
  assert.deepEqual([refusing.reasons, refusing.overcome], [['no-ranges', 'no-ranges'], 0])
  hasRanges = true
  nowMs += 600_000
  assert.deepEqual(await refusing.chunk(3), refusing.contents[3])
  assert.deepEqual([refusing.reads.length, refusing.streamed, refusing.overcome], [2, [2, 9], 1])
})

test('lost windows are streamed around, with that reason', async () => {
  const { chunk, contents, reasons } = lab(20, {
    read: () => {
      throw new P2pfsError('unsupported', 'the windows are lost', { lacks: 'windows' })
    },
  })
  assert.deepEqual(await chunk(3), contents[3])
  assert.deepEqual(reasons, ['no-windows'])
})

const notNow: Error[] = [
  ...(['unavailable', 'timeout', 'busy', 'denied', 'closed', 'missing'] as const).map(
    (code) => new P2pfsError(code, `${code} for now`),
  ),
  new DOMException('aborted', 'AbortError'),
  new TypeError('fetch failed'),
]
for (const error of notNow) {
  test(`a read that fails with "${error.message}" is not streamed, and the next try is at random`, async () => {
    let failing = true
    const { chunk, contents, reads, streamed } = lab(20, {
      read: (bytes) => {
        if (failing) throw error
        return bytes
      },
    })
    await assert.rejects(chunk(3), error)
    failing = false
    assert.deepEqual(await chunk(3), contents[3])
    assert.deepEqual([reads.length, streamed], [2, []])
  })
}

test('wrong bytes, and then no answer, are not streamed', async () => {
  const { chunk, reads, streamed } = lab(20, {
    read: (_bytes, again) => {
      throw new P2pfsError(again ? 'unavailable' : 'invalid', again ? 'away' : 'wrong')
    },
  })
  await assert.rejects(chunk(3), { code: 'unavailable' })
  assert.deepEqual([reads.length, streamed], [2, []])
})

test('a segment is streamed when all have said that there is no map, not while nobody answers', async () => {
  let answers = false
  const { chunk, contents, streamed, reasons } = lab(20, {
    seekable: async () => {
      if (!answers) throw new P2pfsError('unavailable', 'no answer')
      return undefined
    },
  })
  await assert.rejects(Promise.all([chunk(3), chunk(4)]), { code: 'unavailable' })
  assert.deepEqual(streamed, [])
  answers = true
  assert.deepEqual(await chunk(3), contents[3])
  assert.deepEqual([streamed, reasons], [[3], ['no-map']])
})

/** All that needs no more than turns of the event loop is done. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** Lets reads end one by one, in the order in which they began. */
function turnstile(): { gate: (signal: AbortSignal) => Promise<void>; open: () => Promise<void> } {
  const waiting: (() => void)[] = []
  return {
    gate: async (given) =>
      await new Promise((resolve, reject) => {
        waiting.push(resolve)
        given.addEventListener('abort', () => reject(given.reason as Error), { once: true })
      }),
    open: async () => {
      await settle()
      waiting.shift()?.()
      await settle()
    },
  }
}

const startsOf = (reads: Lab['reads']): number[] => reads.map(({ range }) => range.start / chunkBytes)

test('a chunk that somebody waits for finds a read free, and overtakes those that nobody waits for', async () => {
  const { gate, open } = turnstile()
  const { chunk, contents, reads } = lab(400, { gate })
  const background = [0, 40, 80, 120].map(async (index) => await chunk(index))
  await open()
  assert.deepEqual(startsOf(reads), [0, 40, 80])
  const urgent = [200, 240, 280, 320].map(async (index) => await chunk(index, { urgency: new Urgency(true) }))
  for (let i = 0; i < 6; i++) await open()
  assert.deepEqual(startsOf(reads), [0, 40, 80, 200, 240, 280, 320, 120])
  for (let i = 0; i < 4; i++) await open()
  assert.deepEqual(
    await Promise.all([...background, ...urgent]),
    [0, 40, 80, 120, 200, 240, 280, 320].map((index) => contents[index]),
  )
})

test('a chunk that nobody waited for, and somebody does now, overtakes the others', async () => {
  const { gate, open } = turnstile()
  const { chunk, reads } = lab(400, { gate })
  const rising = new Urgency(false)
  const all = [0, 40, 80, 120].map(async (index) => await chunk(index, index === 120 ? { urgency: rising } : {}))
  await settle()
  assert.deepEqual(startsOf(reads), [0, 40])
  rising.raise()
  assert.deepEqual(startsOf(reads), [0, 40, 120])
  for (let i = 0; i < 4; i++) await open()
  await Promise.all(all)
})

test('a chunk that a peer has got before its read starts is left to the peer, and is not read', async () => {
  const gate = Promise.withResolvers<void>()
  const { chunk, reads, contents } = lab(400, { gate: async () => await gate.promise })
  const held = new Set<number>()
  const wanted = [0, 100, 200, 300].map(async (index) => await chunk(index, { isHeld: () => held.has(index) }))
  wanted[2]!.catch(() => undefined)
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(reads.length, 2)
  held.add(0).add(200)
  gate.resolve()
  await assert.rejects(wanted[2]!, HeldByPeerError)
  assert.deepEqual([await wanted[0], await wanted[1], await wanted[3]], [contents[0], contents[100], contents[300]])
  assert.equal(reads.length, 3)
})

test('a read ends when the last of those who wanted it has given up; who comes then begins anew', async () => {
  let aborted = 0
  let isStuck = true
  const { chunk, contents, reads } = lab(40, {
    gate: async (given) => {
      if (isStuck)
        await new Promise((_resolve, reject) =>
          given.addEventListener('abort', () => reject(new Error(`given up ${++aborted}`)), { once: true }),
        )
    },
  })
  const [one, other] = [new AbortController(), new AbortController()]
  const both = [chunk(1, { signal: one.signal }), chunk(2, { signal: other.signal })]
  const ended = Promise.allSettled(both)
  await settle()
  one.abort()
  assert.equal(aborted, 0)
  other.abort()
  assert.equal(aborted, 1)
  assert.deepEqual(
    (await ended).map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  isStuck = false
  assert.deepEqual(await chunk(1), contents[1])
  assert.equal(reads.length, 2)
})

test('a registry that is away fails those who wait, and the next try is a new one', async () => {
  let away = true
  const { chunk, contents } = lab(20, {
    read: (bytes) => {
      if (away) throw new P2pfsError('unavailable', 'away')
      return bytes
    },
  })
  await assert.rejects(Promise.all([chunk(1), chunk(2)]), (error) => isP2pfsError(error, 'unavailable'))
  away = false
  assert.deepEqual(await chunk(1), contents[1])
})
