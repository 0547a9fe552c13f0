import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeCbor } from '../../../protocol/cbor.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import {
  encodeLocationAnswer,
  encodeLocationRequest,
  holds,
  maxKeysPerQuestion,
  maxKeysPerRequest,
  maxLocationAnswerBytes,
  maxLocationRequestBytes,
  maxMembersPerKey,
  nameKey,
  parseLocationAnswer,
  parseLocationRequest,
} from '../../../protocol/messages/location.ts'

const a = digestOf(Buffer.from('a'))
const b = digestOf(Buffer.from('b'))
const request = {
  keys: [
    { key: a, holds: holds.much },
    { key: b, holds: holds.unsaid },
  ],
  wanted: 24,
  order: 1,
}
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

test('location messages have the bytes of SPEC.md', () => {
  const bytes = encodeLocationRequest(request)
  assert.equal(
    hex(bytes),
    `a4646b6579735840${hex(digestToBytes(a))}${hex(digestToBytes(b))}65686f6c6473420300656f72646572016677616e7465641818`,
  )
  assert.deepEqual(parseLocationRequest(bytes), request)
  const answer = [['x', 'y'], []]
  assert.equal(hex(encodeLocationAnswer(answer)), 'a1676d656d6265727382826178617980')
  assert.deepEqual(parseLocationAnswer(encodeLocationAnswer(answer), request), answer)
  assert.deepEqual(parseLocationAnswer(encodeLocationAnswer([]), { ...request, wanted: 0 }), [])
  assert.equal(
    nameKey({ reference: 'r', platform: 'p', format: 'ext4' }),
    digestOf(Buffer.from('p2pfs name\0p\0ext4\0r')),
  )
})

test('the longest messages fit their bounds', () => {
  const keys = Array.from({ length: maxKeysPerRequest }, () => ({ key: a, holds: holds.some }))
  assert.ok(encodeLocationRequest({ keys, wanted: 0, order: 0 }).length <= maxLocationRequestBytes)
  const ids = Array.from({ length: maxMembersPerKey }, () => '12D3KooWABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstu')
  const answer = Array.from({ length: maxKeysPerQuestion }, () => ids)
  assert.ok(encodeLocationAnswer(answer).length <= maxLocationAnswerBytes)
})

test('requests and answers that break the protocol are invalid', () => {
  const isInvalid = (error: unknown): boolean => isP2pfsError(error, 'invalid')
  const good = { keys: digestToBytes(a), holds: Uint8Array.of(2), wanted: 1, order: 0 }
  const many = maxKeysPerQuestion + 1
  assert.ok(parseLocationRequest(encodeCbor(good)))
  for (const wrong of [
    { keys: new Uint8Array(0), holds: new Uint8Array(0) },
    { keys: new Uint8Array(31) },
    { holds: Uint8Array.of(2, 2) },
    { holds: Uint8Array.of(4) },
    { wanted: maxMembersPerKey + 1 },
    { wanted: -1 },
    { order: 'x' },
    { keys: new Uint8Array(32 * many), holds: new Uint8Array(many) },
    { keys: new Uint8Array(32 * 1025), holds: new Uint8Array(1025), wanted: 0 },
  ])
    assert.throws(() => parseLocationRequest(encodeCbor({ ...good, ...wrong })), isInvalid, JSON.stringify(wrong))
  for (const members of [
    [],
    [['x']],
    [['x'], ['y'], []],
    [Array.from({ length: 25 }, () => 'x'), []],
    [[1], []],
    ['x', []],
  ])
    assert.throws(() => parseLocationAnswer(encodeCbor({ members }), request), isInvalid, JSON.stringify(members))
  assert.throws(() => parseLocationAnswer(encodeCbor({ members: [['x'.repeat(129)], []] }), request), isInvalid)
})
