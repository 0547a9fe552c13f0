import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { silentLog } from '../../../../node/base/log.ts'
import { SegmentFiles, type SegmentFilesOptions } from '../../../../node/mount/native/segment-files.ts'
import { runTool } from '../../../../node/mount/placement/run-tool.ts'
import { chunkFile } from '../../../../protocol/chunk-file.ts'
import { ChunkTableBuilder, type ChunkTable } from '../../../../protocol/chunk-table.ts'
import { digestHex, digestOf, type Digest } from '../../../../protocol/digest.ts'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { createRandom } from '../../../support/random.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

interface Segment {
  table: ChunkTable
  bytes: Buffer
  name: string
}

const { signal } = new AbortController()
const plenty = { freeBytes: 900e9, sizeBytes: 1000e9 }

class Host {
  readonly #root: string
  readonly #random = createRandom(11)
  readonly suspected: Digest[] = []
  room = plenty

  constructor(t: TestContext) {
    this.#root = temporaryDirectory(t)
  }

  get chunkDirectory(): string {
    return join(this.#root, 'chunks')
  }

  get directory(): string {
    return join(this.#root, 'segments')
  }

  /** The files, as a daemon finds them when it starts. */
  async open(known: readonly Segment[], options: Partial<SegmentFilesOptions> = {}): Promise<SegmentFiles> {
    const files = new SegmentFiles(
      {
        run: runTool,
        log: { ...silentLog, error: () => undefined },
        suspect: async (chunk) => void this.suspected.push(chunk),
        room: async () => this.room,
      },
      { directory: this.directory, chunkDirectory: this.chunkDirectory, limitBytes: 1e9, bootId: 'boot 1', ...options },
    )
    await files.open(new Set(known.map(({ name }) => name)))
    return files
  }

  /** A segment whose chunks are here. */
  segment(...chunkBytes: number[]): Segment {
    const builder = new ChunkTableBuilder()
    const chunks = chunkBytes.map((length) => this.#random.bytes(length))
    for (const chunk of chunks) {
      const path = chunkFile(this.chunkDirectory, digestOf(chunk))
      mkdirSync(dirname(path), { recursive: true })
      writeFileSync(path, chunk)
      builder.add(digestOf(chunk), chunk.length)
    }
    const table = builder.build()
    return { table, bytes: Buffer.concat(chunks), name: digestHex(table.id) }
  }

  names(): string[] {
    return readdirSync(this.directory).filter((name) => name !== 'boot')
  }
}

const keep = { names: new Set<string>(), mayRemoveOthers: true, signal }
const isUnavailable = (error: unknown): boolean => isP2pfsError(error, 'unavailable')

test('a segment becomes one file of its chunks, for this daemon and the next', async (t) => {
  const host = new Host(t)
  const segment = host.segment(4096, 262_144, 8192)
  const files = await host.open([segment])
  assert.equal(await files.isReady(segment.table), false)
  await files.prepare(segment.table, keep)
  assert.ok(await files.isReady(segment.table))
  assert.ok(readFileSync(files.path(segment.name)).equals(segment.bytes))
  assert.equal(statSync(files.path(segment.name)).mode & 0o777, 0o600)
  assert.equal(files.usedBytes, segment.bytes.length)
  assert.ok(await (await host.open([segment])).isReady(segment.table))
})

const chunkDamages: Record<string, (path: string, bytes: Buffer) => void> = {
  'of other bytes': (path, bytes) => writeFileSync(path, Buffer.alloc(bytes.length, 1)),
  'that is too short': (path, bytes) => writeFileSync(path, bytes.subarray(1)),
}
for (const [name, damage] of Object.entries(chunkDamages)) {
  test(`a chunk ${name} keeps its segment from becoming a file, and leaves nothing`, async (t) => {
    const host = new Host(t)
    const segment = host.segment(4096, 8192)
    damage(chunkFile(host.chunkDirectory, segment.table.digestAt(1)), segment.bytes.subarray(4096))
    const files = await host.open([segment])
    await assert.rejects(files.prepare(segment.table, keep), isUnavailable)
    assert.deepEqual([host.names(), files.usedBytes], [[], 0])
    if (name === 'of other bytes') assert.deepEqual(host.suspected, [segment.table.digestAt(1)])
  })
}

test('what a crash has left, and segments that no image has, are removed at the start', async (t) => {
  const host = new Host(t)
  const [kept, unknown] = [host.segment(4096), host.segment(8192)]
  const files = await host.open([kept, unknown])
  for (const { table } of [kept, unknown]) await files.prepare(table, keep)
  writeFileSync(join(host.directory, `${kept.name}.partial`), 'half')
  const next = await host.open([kept])
  assert.deepEqual([host.names(), next.names()], [[kept.name], [kept.name]])
})

test('after a boot a file is used once its bytes were found right; a damaged one is made again', async (t) => {
  const host = new Host(t)
  const [right, damaged] = [host.segment(4096, 4096), host.segment(8192, 4096)]
  const before = await host.open([right, damaged])
  for (const { table } of [right, damaged]) await before.prepare(table, keep)
  const bytes = Buffer.from(damaged.bytes)
  bytes[9000]! ^= 1
  writeFileSync(before.path(damaged.name), bytes)
  const inode = statSync(before.path(right.name)).ino
  await host.open([right, damaged], { bootId: 'boot 2' })
  // Another daemon starts in the same boot, before anything was checked.
  const files = await host.open([right, damaged], { bootId: 'boot 2' })
  for (const { table } of [right, damaged]) {
    assert.equal(await files.isReady(table), false)
    await files.prepare(table, keep)
    assert.ok(await files.isReady(table))
  }
  assert.ok(readFileSync(files.path(damaged.name)).equals(damaged.bytes))
  assert.equal(statSync(files.path(right.name)).ino, inode, 'the right one is not copied again')
  assert.deepEqual(host.names().toSorted(), [right.name, damaged.name].toSorted())
})

test('a check finds a bit that a disk has changed, and removes the file; one of another length is not ready', async (t) => {
  const host = new Host(t)
  const segment = host.segment(4096, 8192)
  const files = await host.open([segment])
  await files.prepare(segment.table, keep)
  assert.equal(await files.check(segment.table, { signal }), undefined)
  const bytes = Buffer.from(segment.bytes)
  bytes[5000]! ^= 1
  writeFileSync(files.path(segment.name), bytes)
  assert.equal(await files.check(segment.table, { signal }), segment.table.digestAt(1))
  assert.deepEqual(host.names(), [])
  await files.prepare(segment.table, keep)
  writeFileSync(files.path(segment.name), segment.bytes.subarray(0, 4096))
  assert.equal(await files.isReady(segment.table), false)
})

test('files stay below the limit: those that were used least recently go, if they may', async (t) => {
  const host = new Host(t)
  const segments = [host.segment(40_960), host.segment(40_960), host.segment(40_960)] as const
  const [oldest, recent, next] = segments
  const files = await host.open(segments, { limitBytes: 100_000 })
  for (const { table } of [recent, oldest]) await files.prepare(table, keep)
  utimesSync(files.path(oldest.name), 1, 1)
  const again = await host.open(segments, { limitBytes: 100_000 })
  await assert.rejects(again.prepare(next.table, { ...keep, mayRemoveOthers: false }), isUnavailable)
  const all = new Set(segments.map(({ name }) => name))
  await assert.rejects(again.prepare(next.table, { ...keep, names: all }), isUnavailable)
  assert.equal(host.names().length, 2)
  await again.prepare(next.table, keep)
  assert.deepEqual(host.names().toSorted(), [recent.name, next.name].toSorted())
  assert.ok(again.usedBytes <= 100_000)
})

test('a share of the disk stays free', async (t) => {
  const host = new Host(t)
  const segment = host.segment(40_960)
  const files = await host.open([segment])
  host.room = { sizeBytes: 1_000_000, freeBytes: 190_000 }
  await assert.rejects(files.prepare(segment.table, keep), isUnavailable)
  host.room = { sizeBytes: 1_000_000, freeBytes: 191_000 }
  await files.prepare(segment.table, keep)
})

test('an abort ends a copy under way, and leaves nothing', async (t) => {
  const host = new Host(t)
  const segment = host.segment(...Array<number>(40).fill(262_144))
  const files = await host.open([segment])
  const abort = new AbortController()
  const preparing = files.prepare(segment.table, { ...keep, signal: abort.signal })
  abort.abort()
  await assert.rejects(preparing, { name: 'AbortError' })
  assert.deepEqual(host.names(), [])
})
