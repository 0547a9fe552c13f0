import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PackedPieces } from '../../../protocol/packed-pieces.ts'
import { silentLog } from '../../../node/base/log.ts'
import { LayerRanges } from '../../../node/layers/layer-ranges.ts'
import type { FetchChunk } from '../../../node/model/chunk-request.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { formatReference } from '../../../node/registry/reference.ts'
import type { BlobMap } from '../../../protocol/blob-map.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { rootfsDigest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { testKey } from '../../support/test-key.ts'

const a = digestOf(Buffer.from('a'))
const table = new ChunkTable([4096, 4096], Buffer.concat([digestToBytes(a), digestToBytes(a)]))
const b = digestOf(Buffer.from('b'))
const windows = new ChunkTable([4096, 4096], Buffer.concat([digestToBytes(b), digestToBytes(b)]))
const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [a] } })
const manifest: RootfsManifest = { format: 'ext4', metadata: table, layers: [{ diffId: a, chunks: table }], config }
const record: ImageRecord = {
  reference: 'r.test/lab/image:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest: a,
  manifest: JSON.stringify({
    schemaVersion: 2,
    config: { mediaType: 'c', digest: a, size: 1 },
    layers: [{ mediaType: 'l', digest: a, size: 5000 }],
  }),
  rootfsDigest: rootfsDigest(manifest),
  attestation: { key: (await testKey(1)).key, signature: new Uint8Array(64) },
  nameStatement: { key: (await testKey(1)).key, signature: new Uint8Array(64), statedAtMs: 1 },
}
const map: BlobMap = {
  digest: a,
  diffId: a,
  sizeBytes: 5000,
  tarBytes: 20_000,
  compression: 'gzip',
  checkpoints: [
    { bitOffset: 0, tarOffset: 0, window: { offset: 0, lengthBytes: 0 } },
    { bitOffset: 16_000, tarOffset: 8000, window: { offset: 4000, lengthBytes: 900 } },
  ],
  stopPoints: new Uint32Array(0),
  windows,
  pieces: PackedPieces.of([{ segmentOffset: 0, lengthBytes: 8192, tarOffset: 10_000 }]),
}

/** How to read the layer's data segment. */
async function dataSegment(
  parts: Partial<ConstructorParameters<typeof LayerRanges>[0]>,
  readDeadlineMs?: number,
): Promise<NonNullable<Awaited<ReturnType<LayerRanges['seekable']>>>> {
  return (await layerRanges(parts, readDeadlineMs).seekable(table.id, { signal }))!
}

function layerRanges(
  parts: Partial<ConstructorParameters<typeof LayerRanges>[0]>,
  readDeadlineMs = 60_000,
): LayerRanges {
  const all = {
    catalog: {
      images: async () => [record],
      rootfs: async () => manifest,
    },
    blobMaps: { get: async () => map, put: async () => undefined },
    registry: { range: async () => new Uint8Array(0) },
    answers: { blobMap: async () => undefined },
    published: { of: async () => undefined, windows: async () => undefined },
    log: silentLog,
    ...parts,
  }
  return new LayerRanges(all, { readDeadlineMs })
}

const { signal } = new AbortController()
const options = {
  signal,
  urgency: new Urgency(true),
  again: false,
  fetchChunk: async (): Promise<never> => {
    throw new P2pfsError('unavailable', 'nobody has it')
  },
}

test('a window is asked for while its data is', async () => {
  const windowAsked = Promise.withResolvers<void>()
  const dataAsked = Promise.withResolvers<void>()
  const asked: unknown[] = []
  const segment = await dataSegment({
    registry: {
      range: async (_reference, _blob, range) => {
        dataAsked.resolve()
        await windowAsked.promise
        asked.push(range)
        return new Uint8Array(range.end - range.start)
      },
    },
  })
  const fetchChunk: FetchChunk = async ({ table, index, lengthBytes }) => {
    windowAsked.resolve()
    await dataAsked.promise
    asked.push({ table, index })
    return new Uint8Array(lengthBytes)
  }
  // Neither answers before the other is asked; zeros are no gzip.
  await assert.rejects(segment.read(segment.rangeOf(0)!, { ...options, fetchChunk }), { code: 'invalid' })
  assert.deepEqual(
    new Set(asked),
    new Set([
      { start: 2000, end: 5000 },
      { table: windows.id, index: 0 },
    ]),
  )
})

test('windows are read where they are published, several chunks at once, each as it is', async () => {
  const ranges: unknown[] = []
  const bytes = Uint8Array.from({ length: 8192 }, (_, i) => i >> 4)
  const layers = layerRanges({
    published: {
      of: async () => undefined,
      windows: async (_record, which) => {
        assert.deepEqual(which, { blob: a, table: windows.id })
        return async (range) => {
          ranges.push(range)
          return bytes.slice(range.start, range.end)
        }
      },
    },
  })
  assert.equal(await layers.seekable(windows.id, { signal }), undefined, 'windows of a layer that nobody has read')
  const data = (await layers.seekable(table.id, { signal }))!
  await assert.rejects(data.read(data.rangeOf(0)!, options), { code: 'unavailable' })
  const segment = (await layers.seekable(windows.id, { signal }))!
  const both = segment.join(segment.rangeOf(0)!, segment.rangeOf(1)!)
  const chunks = [...(await segment.read(both, options))]
  assert.deepEqual(
    chunks.map(({ index, bytes: chunk }) => [
      index,
      Buffer.from(chunk).equals(bytes.subarray(index * 4096, (index + 1) * 4096)),
    ]),
    [
      [0, true],
      [1, true],
    ],
  )
  const [second] = await segment.read(segment.rangeOf(1)!, options)
  assert.deepEqual(
    [second!.index, ranges],
    [
      1,
      [
        { start: 0, end: 8192 },
        { start: 4096, end: 8192 },
      ],
    ],
  )
})

const failing = (code: ErrorCode) => async (): Promise<never> => {
  throw new P2pfsError(code, `${code} for now`)
}

for (const code of ['unavailable', 'denied', 'closed'] as const) {
  test(`a window that is ${code} fails the read with that: it says nothing of how the layer can be read`, async () => {
    const segment = await dataSegment({})
    const reading = segment.read(segment.rangeOf(0)!, { ...options, fetchChunk: failing(code) })
    await assert.rejects(reading, { code })
  })
}

for (const [readDeadlineMs, lostMs] of [
  [600_000, 10_000],
  [60_000, 10_000],
  [6_000, 1_000],
]) {
  test(`a window that nobody has is lost after ${lostMs} ms where reads wait ${readDeadlineMs} ms`, async () => {
    let nowMs = 0
    const segment = await dataSegment({ now: () => nowMs }, readDeadlineMs)
    const read = async (): Promise<unknown> =>
      await segment.read(segment.rangeOf(0)!, { ...options, fetchChunk: failing('missing') })
    for (; nowMs < lostMs!; nowMs += 250) await assert.rejects(read(), { code: 'unavailable' })
    await assert.rejects(read(), { code: 'unsupported' })
  })
}

test('a registry without ranges is one though the window is not to be had either', async () => {
  const range = async (): Promise<never> => {
    await new Promise((resolve) => setImmediate(resolve))
    throw new P2pfsError('unsupported', 'no ranges')
  }
  const segment = await dataSegment({ registry: { range } })
  await assert.rejects(segment.read(segment.rangeOf(0)!, options), { code: 'unsupported' })
})

test('a registry that refuses a range says nothing of the bytes', async () => {
  const segment = await dataSegment({
    registry: {
      range: async () => {
        throw new P2pfsError('invalid', 'the registry answers 400', { status: 400 })
      },
    },
  })
  const fetchChunk: FetchChunk = async ({ lengthBytes }) => new Uint8Array(lengthBytes)
  await assert.rejects(segment.read(segment.rangeOf(0)!, { ...options, fetchChunk }), { code: 'unavailable' })
})

const noMap = { get: async () => undefined, put: async () => undefined }

test('a layer without a map is one for which region and registry have said so', async () => {
  assert.equal(await layerRanges({ blobMaps: noMap }).seekable(table.id, { signal }), undefined)
})

for (const [silent, parts] of [
  ['region', { answers: { blobMap: failing('unavailable') } }],
  ['registry', { published: { of: failing('unavailable'), windows: failing('unavailable') } }],
] as const) {
  test(`a ${silent} that does not answer for a map leaves the question open, and is told of at last`, async () => {
    let nowMs = 0
    const warnings: string[] = []
    const log = { ...silentLog, warn: (message: string) => void warnings.push(message) }
    const layers = layerRanges({ blobMaps: noMap, now: () => nowMs, log, ...parts })
    for (; nowMs < 90_000; nowMs += 5_000)
      await assert.rejects(layers.seekable(table.id, { signal }), { code: 'unavailable' })
    assert.deepEqual(warnings, ['nobody says how to read a layer at random; reads of it wait'])
    assert.equal(await layers.blobMap(a, record), undefined, 'whoever does not wait has none')
  })
}

test('windows of which the registry does not say whether they are published are not missing', async () => {
  const layers = layerRanges({ published: { of: async () => undefined, windows: failing('unavailable') } })
  const segment = (await layers.seekable(table.id, { signal }))!
  await assert.rejects(segment.read(segment.rangeOf(0)!, options), { code: 'unavailable' })
  await assert.rejects(layers.seekable(windows.id, { signal }), { code: 'unavailable' })
})

test('a layer that its repository refuses is read out of another one that has it, which is remembered', async () => {
  for (const code of ['denied', 'missing'] as const) {
    const asked: string[] = []
    const segment = await dataSegment({
      catalog: {
        images: async () => [
          record,
          { ...record, reference: 'r.test/lab/image:2' },
          { ...record, reference: 'r.test/lab/down:1' },
          { ...record, reference: 'r.test/lab/unrelated:1', manifest: '{}' },
          { ...record, reference: 'r.test/team/other:1' },
        ],
        rootfs: async () => manifest,
      },
      registry: {
        range: async (reference, _blob, { start, end }) => {
          asked.push(formatReference(reference))
          if (reference.kind !== 'registry' || reference.repository === 'lab/image')
            throw new P2pfsError(code, 'not for this host')
          if (reference.repository === 'lab/down') throw new P2pfsError('unavailable', 'no answer')
          return new Uint8Array(end - start)
        },
      },
    })
    const fetchChunk: FetchChunk = async ({ lengthBytes }) => await Promise.resolve(new Uint8Array(lengthBytes))
    const read = async () => await segment.read(segment.rangeOf(0)!, { ...options, fetchChunk })
    // Zeros are no gzip.
    await assert.rejects(read(), { code: 'invalid' })
    assert.deepEqual(asked, ['r.test/lab/image:1', 'r.test/lab/down:1', 'r.test/team/other:1'])
    await assert.rejects(read(), { code: 'invalid' })
    assert.deepEqual(asked.slice(3), ['r.test/team/other:1'])
  }
})

test('a layer that all repositories refuse fails with what its own has said', async () => {
  const segment = await dataSegment({
    catalog: {
      images: async () => [record, { ...record, reference: 'r.test/team/other:1' }],
      rootfs: async () => manifest,
    },
    registry: {
      range: async (reference) => {
        throw new P2pfsError('denied', `not ${formatReference(reference)}`)
      },
    },
  })
  const fetchChunk: FetchChunk = async ({ lengthBytes }) => await Promise.resolve(new Uint8Array(lengthBytes))
  await assert.rejects(segment.read(segment.rangeOf(0)!, { ...options, fetchChunk }), {
    code: 'denied',
    message: 'not r.test/lab/image:1',
  })
})
