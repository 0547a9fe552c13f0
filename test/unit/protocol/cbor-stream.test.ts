import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeCbor } from '../../../protocol/cbor.ts'
import { CborReader, CborWriter } from '../../../protocol/cbor-stream.ts'
import { createRandom } from '../../support/random.ts'

test('items are written as the CBOR library writes them, and read back, whatever their sizes', () => {
  const seed = 11
  const random = createRandom(seed)
  const edges = [0, 23, 24, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER]
  const numbers = [
    ...edges,
    ...edges.map((value) => (value === 0 ? -1 : -value)),
    ...Array.from({ length: 200 }, () => random.below(2 ** 40) - 2 ** 39),
  ]
  // Each is larger than all before it: the writer's buffer grows at every kind of item.
  const strings = [0, 23, 24, 300, 70_000, 300_000, 5_000_000, 40_000_000].map((length) =>
    Buffer.alloc(length, random.below(256)),
  )
  const value = { n: numbers, s: strings, text: 'é'.repeat(100_000) }
  const writer = new CborWriter().map(3).text('n').array(numbers.length)
  for (const number of numbers) writer.integer(number)
  writer.text('s').array(strings.length)
  for (const [i, bytes] of strings.entries())
    if (i % 2 === 0) writer.bytes(bytes)
    else writer.byteString(bytes.toString('latin1'))
  const written = writer.text('text').text(value.text).finish()
  assert.ok(Buffer.from(encodeCbor(value)).equals(written), `seed ${seed}`)
  const reader = new CborReader(written, 'value')
  assert.deepEqual([reader.map('value'), reader.text('key'), reader.array('numbers')], [3, 'n', numbers.length])
  for (const number of numbers) assert.equal(reader.integer('number'), number)
  assert.deepEqual([reader.text('key'), reader.array('strings')], ['s', strings.length])
  for (const bytes of strings) assert.ok(bytes.equals(reader.bytes('string')))
  assert.deepEqual([reader.text('key'), reader.text('text')], ['text', value.text])
  reader.finish()
})
