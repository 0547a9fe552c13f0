import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestBytes, digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import type { LayerEntry } from '../../../protocol/layer-entry.ts'
import { encodeLayerIndex, LayerIndexParser, parseLayerIndex, type LayerIndex } from '../../../protocol/layer-index.ts'
import { PackedEntries } from '../../../protocol/packed-entries.ts'
import { createRandom } from '../../support/random.ts'

const random = createRandom(4)
const entries = Array.from({ length: 9000 }, (_, i): LayerEntry => ({
  path: `directory-${i % 70}/file-${i}`,
  type: 'file',
  mode: 0o644,
  uid: random.below(2 ** 31),
  gid: 0,
  mtime: { seconds: 1_700_000_000 - i, nanoseconds: i },
  xattrs: i % 1000 === 0 ? [{ name: 'user.x', value: Uint8Array.from(random.bytes(random.below(20_000))) }] : [],
  linkTarget: '',
  device: { major: 0, minor: 0 },
  sizeBytes: i,
  extents: i === 0 ? [] : [{ fileOffset: 0, lengthBytes: i, segmentOffset: 0, tarOffset: i * 512 }],
}))
const index: LayerIndex = {
  diffId: digestOf(Buffer.from('layer')),
  tarBytes: 9000 * 512,
  chunks: new ChunkTable(
    Array.from({ length: 3000 }, () => 4096),
    random.bytes(3000 * digestBytes),
  ),
  entries,
}
const encoded = encodeLayerIndex(index)

test('packed entries are the entries, in several blocks, as often as somebody looks', () => {
  const packed = PackedEntries.from(entries)
  assert.ok(packed.blocks.length > 2)
  assert.equal(packed.length, entries.length)
  for (let i = 0; i < 2; i++) assert.deepEqual([...packed], entries)
  assert.deepEqual(encodeLayerIndex({ ...index, entries: packed }), encoded)
})

test('an index that comes in pieces of any size is the same as the whole', () => {
  assert.deepEqual(encodeLayerIndex(parseLayerIndex(encoded)), encoded)
  for (const maxPieceBytes of [100, 5000, 100_000]) {
    const parser = new LayerIndexParser()
    for (let offset = 0; offset < encoded.length;) {
      const end = offset + 1 + random.below(maxPieceBytes)
      const piece = Buffer.from(encoded.subarray(offset, end))
      parser.push(piece)
      piece.fill(0)
      offset = end
    }
    assert.deepEqual(encodeLayerIndex(parser.finish()), encoded)
  }
})

test('an index that ends early, or goes on, is invalid', () => {
  const parse = (bytes: Uint8Array): LayerIndex => {
    const parser = new LayerIndexParser()
    for (let offset = 0; offset < bytes.length; offset += 3000) parser.push(bytes.subarray(offset, offset + 3000))
    return parser.finish()
  }
  for (let i = 0; i < 20; i++)
    assert.throws(
      () => parse(encoded.subarray(0, random.below(encoded.length))),
      (error) => isP2pfsError(error, 'invalid'),
    )
  assert.throws(
    () => parse(Buffer.concat([encoded, Buffer.of(0)])),
    (error) => isP2pfsError(error, 'invalid'),
  )
})
