import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { gzipSync } from 'node:zlib'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import type { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { WriteEpochs } from '../../../node/base/write-epochs.ts'
import type { ChunkFate, ChunkSink, NamedChunk } from '../../../node/model/chunk-sink.ts'
import { importLayer, type ImportedLayer } from '../../../node/rootfs/layer-import.ts'
import { createRandom } from '../../support/random.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const { signal } = new AbortController()
const big = createRandom(1).bytes(700_000)
const tar = writeTar([
  { path: 'big', type: 'file', content: big },
  { path: 'same', type: 'file', content: big },
  { path: 'small', type: 'file', content: createRandom(2).bytes(5_000) },
])

interface Recorder extends ChunkSink {
  directory: string
  decided: NamedChunk[]
  adopted: Digest[]
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
  sent: Map<Digest, Buffer>
  isOver: boolean
}

/** Records what a thread does with its chunks. */
function recorder(t: TestContext, fateOf: (chunk: NamedChunk) => ChunkFate | Promise<ChunkFate>): Recorder {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'incoming'))
  for (let i = 0; i < 256; i++) mkdirSync(join(directory, i.toString(16).padStart(2, '0')))
  const epochs = WriteEpochs.startingAt(1)
  const made: Recorder = {
    directory,
    decided: [],
    adopted: [],
    sent: new Map(),
    isOver: false,
    put: async (digest, bytes) => void made.sent.set(digest, Buffer.from(bytes)),
    openFiles: () => ({
      writing: { directory, epochs: epochs.shared, cell: epochs.giveCell() },
      decide: async (chunk) => {
        made.decided.push(chunk)
        return await fateOf(chunk)
      },
      adopt: (chunks) => void made.adopted.push(...chunks.map(({ digest }) => digest)),
      failed: async (cause) => new Error('refused', { cause }),
      [Symbol.asyncDispose]: async () => void (made.isOver = true),
    }),
  }
  return made
}

async function importTar(sink: ChunkSink, bytes: Buffer = gzipSync(tar)): Promise<ImportedLayer> {
  const pieces = async function* (): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += 10_000) yield bytes.subarray(at, at + 10_000)
  }
  return await importLayer(pieces(), { digest: digestOf(bytes), diffId: digestOf(tar) }, sink, { signal })
}

test('a thread writes the files of its chunks, and tells of all of them before its result', async (t) => {
  const sink = recorder(t, () => 'write')
  const { index, map } = await importTar(sink)
  assert.equal(sink.isOver, true)
  assert.equal(sink.sent.size, 0)
  const named = new Set([...namesOf(index.chunks), ...namesOf(map!.windows)])
  assert.deepEqual(new Set(sink.adopted), named)
  for (const digest of named) assert.equal(digestOf(readFileSync(chunkFile(sink.directory, digest))), digest)
})

test('chunks that are sent arrive whole, and those that are dropped are neither sent nor written', async (t) => {
  const fates: ChunkFate[] = ['send', 'drop', 'write']
  const fated = new Map<Digest, ChunkFate>()
  const sink = recorder(t, ({ digest }) => {
    const fate = fated.get(digest) ?? fates[fated.size % 3]!
    fated.set(digest, fate)
    return fate
  })
  const { index } = await importTar(sink)
  assert.ok(index.chunks.count > 3)
  const fatedTo = (wanted: ChunkFate): Digest[] =>
    [...fated].filter(([, fate]) => fate === wanted).map(([digest]) => digest)
  assert.deepEqual([...sink.sent.keys()], fatedTo('send'))
  for (const [digest, bytes] of sink.sent) assert.equal(digestOf(bytes), digest)
  assert.deepEqual(new Set(sink.adopted), new Set(fatedTo('write')))
})

test('a chunk that comes again before it is kept is asked for once', async (t) => {
  const gate = Promise.withResolvers<void>()
  const sink = recorder(t, async (): Promise<ChunkFate> => {
    // Three of the large file, and the small one: all that the layer has is under way by then.
    if (sink.decided.length === 4) gate.resolve()
    await gate.promise
    return 'write'
  })
  const { index } = await importTar(sink, tar)
  assert.equal(index.chunks.count, 7)
  assert.equal(sink.decided.length, 4)
})

test('a plain tar is checked against its digest though it is hashed once', async (t) => {
  const wrong = Buffer.from(tar)
  wrong[1_000] = wrong[1_000]! ^ 1
  const pieces = async function* (): AsyncGenerator<Uint8Array> {
    yield wrong
  }
  const layer = { digest: digestOf(tar), diffId: digestOf(tar) }
  await assert.rejects(
    importLayer(
      pieces(),
      layer,
      recorder(t, () => 'write'),
      { signal },
    ),
    /another digest/,
  )
  const { map } = await importTar(
    recorder(t, () => 'write'),
    tar,
  )
  assert.equal(map!.digest, digestOf(tar))
})

test('a disk that refuses a file, and a refusal to decide, end the import with that error', async (t) => {
  const refusing = recorder(t, () => 'write')
  rmSync(join(refusing.directory, 'incoming'), { recursive: true })
  await assert.rejects(importTar(refusing), (error: Error) => {
    assert.equal(error.message, 'refused')
    assert.equal((error.cause as NodeJS.ErrnoException).code, 'ENOENT')
    return true
  })
  assert.equal(refusing.isOver, true)
  const full = recorder(t, async () => await Promise.reject(new Error('full')))
  await assert.rejects(importTar(full), /full/)
  assert.equal(full.isOver, true)
})

function namesOf(table: ChunkTable): Digest[] {
  return Array.from({ length: table.count }, (_, i) => table.digestAt(i))
}
