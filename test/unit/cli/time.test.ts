import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UsageError } from '../../../cli/failure.ts'
import { parseMs, parseTime } from '../../../cli/time.ts'

test('a time is a duration with a unit, or a date with a zone', () => {
  assert.equal(parseMs('90m', '--ttl'), 5_400_000)
  assert.equal(parseTime('+2h', '--at', 1_000), 7_201_000)
  assert.equal(parseTime('2026-01-31T03:00Z', '--at', 0), Date.UTC(2026, 0, 31, 3))
  assert.equal(parseTime('2026-01-31T03:00:30+01:00', '--at', 0), Date.UTC(2026, 0, 31, 2, 0, 30))
  for (const text of ['', '0', '-1h', 'soon', '1d']) assert.throws(() => parseMs(text, '--ttl'), UsageError)
  for (const text of ['', '2026-01-31', '2026-01-31T03:00', '2026-13-31T03:00Z', '+', 'tomorrow'])
    assert.throws(() => parseTime(text, '--at', 0), UsageError)
  assert.throws(() => parseTime('2026-01-31T03:00Z', '--at', Date.UTC(2026, 0, 31, 3, 1)), UsageError)
})
