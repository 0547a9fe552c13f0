import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import {
  bulkAskerProof,
  bulkHolderProof,
  encodeBulkAnswer,
  encodeBulkOrder,
  encodeBulkRequest,
  parseBulkAnswer,
  parseBulkAnswerHeader,
  parseBulkOrder,
  parseBulkRequest,
  writeBulkAnswerHeader,
  type BulkOrder,
} from '../../../protocol/messages/bulk.ts'
import { encodeCbor } from '../../../protocol/cbor.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const id = Buffer.alloc(16, 1)
const secret = Buffer.alloc(32, 2)
const digest = digestOf(Buffer.from('chunk'))

test('requests, answers and proofs have these bytes', () => {
  assert.equal(hex(encodeBulkRequest({ mode: 'tls' })), 'a1646d6f646563746c73')
  assert.equal(
    hex(encodeBulkAnswer({ port: 4101, id, secret })),
    `a362696450${'01'.repeat(16)}64706f7274191005667365637265745820${'02'.repeat(32)}`,
  )
  assert.equal(hex(encodeBulkAnswer({ refused: 'busy' })), 'a167726566757365646462757379')
  assert.equal(hex(bulkAskerProof(secret)), 'bf5499f6b55f58d924e7822ce1eb81917264ab35017edec318ed398bbfc07352')
  assert.equal(hex(bulkHolderProof(secret)), '1c42425edfd38bac7b0a788e35d10eb70345daebb87197d79a76bbf2e73742bd')
})

test('orders and answer headers have these bytes', () => {
  assert.equal(hex(encodeBulkOrder({ order: 'want', id: 258, digest })), `0102010000${digest.slice(7)}`)
  assert.equal(hex(encodeBulkOrder({ order: 'cancel', id: 1 })), '0201000000')
  assert.equal(hex(encodeBulkOrder({ order: 'raise', id: 2 ** 32 - 1 })), '03ffffffff')
  assert.equal(hex(encodeBulkOrder({ order: 'last', id: 1, digest })), `0401000000${digest.slice(7)}`)
  assert.equal(hex(encodeBulkOrder({ order: 'want', id: 1, digest, waits: true })), `1101000000${digest.slice(7)}`)
  assert.equal(hex(encodeBulkOrder({ order: 'last', id: 1, digest, waits: true })), `1401000000${digest.slice(7)}`)
  assert.equal(hex(encodeBulkOrder({ order: 'kept', id: 1 })), '0501000000')
  const header = Buffer.alloc(9)
  writeBulkAnswerHeader(header, { status: 'chunk', id: 1, lengthBytes: 4096 })
  assert.equal(hex(header), '000100000000100000')
  writeBulkAnswerHeader(header, { status: 'missing', id: 1, lengthBytes: 0 })
  assert.equal(hex(header), '010100000000000000')
  writeBulkAnswerHeader(header, { status: 'cancelled', id: 1, lengthBytes: 0 })
  assert.equal(hex(header), '020100000000000000')
  writeBulkAnswerHeader(header, { status: 'trimmed', id: 1, lengthBytes: 34 })
  assert.equal(hex(header), '030100000022000000')
  writeBulkAnswerHeader(header, { status: 'elsewhere', id: 1, lengthBytes: 34 })
  assert.equal(hex(header), '040100000022000000')
})

test('what is encoded is parsed as it was', () => {
  assert.deepEqual(parseBulkRequest(encodeBulkRequest({ mode: 'plain' })), { mode: 'plain' })
  assert.deepEqual(parseBulkAnswer(encodeBulkAnswer({ refused: 'mode' })), { refused: 'mode' })
  const grant = parseBulkAnswer(encodeBulkAnswer({ port: 1, id, secret }))
  assert.deepEqual(grant, { port: 1, id: Uint8Array.from(id), secret: Uint8Array.from(secret) })
  const orders: BulkOrder[] = [
    { order: 'want', id: 7, digest, waits: false },
    { order: 'last', id: 8, digest, waits: false },
    { order: 'want', id: 9, digest, waits: true },
    { order: 'last', id: 10, digest, waits: true },
    { order: 'cancel', id: 7 },
    { order: 'raise', id: 0 },
    { order: 'kept', id: 7 },
  ]
  for (const order of orders) {
    const bytes = encodeBulkOrder(order)
    assert.deepEqual(parseBulkOrder(Buffer.concat([bytes, bytes])), { order, lengthBytes: bytes.length })
    for (let end = 0; end < bytes.length; end++) assert.equal(parseBulkOrder(bytes.subarray(0, end)), undefined)
  }
})

test('what no honest host says is invalid', () => {
  const isInvalid = (error: unknown): boolean => isP2pfsError(error, 'invalid')
  for (const answer of [
    {},
    { refused: 'later' },
    { refused: 1 },
    { port: 0, id, secret },
    { port: 65_536, id, secret },
    { port: 1, id: secret, secret },
    { port: 1, id, secret: id },
    { port: 1, id },
    [],
    7,
  ])
    assert.throws(() => parseBulkAnswer(encodeCbor(answer)), isInvalid)
  for (const request of [{}, { mode: 'none' }, { mode: 1 }, 'tls']) {
    assert.throws(() => parseBulkRequest(encodeCbor(request)), isInvalid)
  }
  assert.throws(() => parseBulkOrder(Buffer.from([0])), isInvalid)
  for (const order of [6, 16, 16 + 2, 16 + 3, 16 + 5, 32 + 1])
    assert.throws(() => parseBulkOrder(Buffer.from([order, 0, 0, 0, 0])), isInvalid)
  for (const header of [
    '040100000000000000',
    '040100000001020000',
    '050100000000000000',
    '030100000000000000',
    '000100000000000000',
    '000100000001000400',
    '010100000001000000',
  ])
    assert.throws(() => parseBulkAnswerHeader(Buffer.from(header, 'hex')), isInvalid)
})
