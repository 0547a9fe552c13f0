import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clip, escapeJson, showHidden } from '../../../node/base/hidden-characters.ts'
import { createLog } from '../../../node/base/log.ts'

/** Code points, by their kind, that no text may have in it when it reaches a terminal or a log. */
const kinds: Record<string, number[]> = {
  'C0 and DEL': [...Array.from({ length: 32 }, (_, i) => i), 0x7f],
  C1: Array.from({ length: 32 }, (_, i) => 0x80 + i),
  'direction of writing': [
    0x61c, 0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069,
  ],
  'ends of lines': [0x85, 0x2028, 0x2029],
  'zero width': [0xad, 0x200b, 0x200c, 0x200d, 0x2060, 0xfeff],
  'halves of pairs': [0xd800, 0xdbff, 0xdc00, 0xdfff],
  tags: [0xe0001, 0xe0041, 0xe007f],
}
const isPrintable = (text: string): boolean => !/[^\P{C}\p{Co}\p{Cn}]|[\p{Zl}\p{Zp}]/u.test(text)

for (const [kind, points] of Object.entries(kinds)) {
  test(`what a terminal would obey or not show is written out: ${kind}`, () => {
    for (const point of points) {
      const character = String.fromCodePoint(point)
      assert.ok(!isPrintable(`a${character}b`), 'the test tells them')
      assert.equal(showHidden(`a${character}b`), `a\\u{${point.toString(16)}}b`)
    }
  })

  test(`JSON means the same and is printable: ${kind}`, () => {
    for (const point of points) {
      const value = { [`k${String.fromCodePoint(point)}`]: `a${String.fromCodePoint(point)}b` }
      const json = escapeJson(JSON.stringify(value))
      assert.ok(isPrintable(json), json)
      assert.deepEqual(JSON.parse(json), value)
    }
  })
}

test('text in any script stays as it is', () => {
  const text = 'naïve Ω Ж 漢字 नमस्ते 😀 “quoted” C:\\path'
  assert.equal(showHidden(text), text)
  assert.equal(escapeJson(JSON.stringify(text)), JSON.stringify(text))
})

test('a text that is too long is cut, and says so', () => {
  assert.equal(clip('abc', 3), 'abc')
  assert.equal(clip('abcdef', 3), 'abc… (3 more)')
})

/** The lines that a log writes for these fields. */
function logged(fields: Record<string, unknown>): string[] {
  const written: string[] = []
  createLog('info', (line) => void written.push(line), { part: 'test' }).info('constant', fields)
  return written
}

test('a log line is one line of printable JSON, whatever is in its fields', () => {
  const hostile = `\u001b[2J\r\n{"level":"error"}\u007f\u0085\u009b31m\u2028\u202e\ud800`
  const cause = Object.assign(new Error(hostile), { code: hostile })
  const [line = '', ...others] = logged({ name: hostile, [hostile]: 1, error: new Error(hostile, { cause }) })
  assert.deepEqual(others, [])
  assert.ok(line.endsWith('}\n') && isPrintable(line.slice(0, -1)), JSON.stringify(line))
  const parsed = JSON.parse(line) as Record<string, unknown>
  assert.deepEqual([parsed['message'], parsed['name'], parsed[hostile]], ['constant', hostile, 1])
})

test('a log line is bounded: long texts, long lists, and many fields', () => {
  const long = 'x'.repeat(1_000_000)
  const [text = ''] = logged({ name: long, error: new Error(long) })
  assert.ok(text.length < 20_000, `${text.length}`)
  assert.match(text, /x… \(995904 more\)/)
  const [list = ''] = logged({ addresses: Array.from({ length: 1000 }, (_, i) => `a${i}`) })
  assert.equal((JSON.parse(list) as { addresses: string[] }).addresses.length, 101)
  assert.match(list, /"900 more"/)
  const [many = ''] = logged(Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`f${i}`, 'y'.repeat(1000)])))
  assert.ok(many.length < 20_000, `${many.length}`)
  const parsed = JSON.parse(many) as Record<string, unknown>
  assert.deepEqual([parsed['level'], parsed['message'], parsed['part']], ['info', 'constant', 'test'])
})
