import { createHmac } from 'node:crypto'
import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import { maxChunkBytes } from '../chunk-table.ts'
import { digestBytes, digestFromBytes, digestToBytes, type Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'
import { maxHoldersBytes } from './chunk.ts'

/** One request and one answer per stream: an asker gets a grant for one bulk connection to the holder. */
export const bulkProtocol = '/p2pfs/bulk/4'

/** Longest request, and longest answer (bytes). */
export const maxBulkMessageBytes = 256
/** Random bytes that name a grant: the PSK identity, in hex, of its connection. */
export const grantIdBytes = 16
/** Random bytes that only the two know: the pre-shared key of the connection. */
export const grantSecretBytes = 32
/** How long a grant can be used (ms): a few round trips and a busy machine. */
export const grantLifetimeMs = 5_000

/** How bulk connections are protected; both sides must mean the same. */
export const bulkModes = ['tls', 'plain'] as const
export type BulkMode = (typeof bulkModes)[number]

/** Why a holder gives no grant: it has no bulk connections, it has too many, its mode is another one. */
export const bulkRefusals = ['off', 'busy', 'mode'] as const
export type BulkRefusal = (typeof bulkRefusals)[number]

export interface BulkRequest {
  mode: BulkMode
}

/** One connection may be opened with it, once, within {@link grantLifetimeMs}. */
export interface BulkGrant {
  /** TCP port, at the address at which the asker reaches the holder. */
  port: number
  id: Uint8Array
  secret: Uint8Array
}

export type BulkAnswer = BulkGrant | { refused: BulkRefusal }

/** SPEC.md, "Bulk protocol". */
export function encodeBulkRequest(request: BulkRequest): Uint8Array {
  return encodeCbor({ mode: request.mode })
}

/** @throws invalid */
export function parseBulkRequest(bytes: Uint8Array): BulkRequest {
  return { mode: oneOf(bulkModes, new Fields(parseCbor(bytes, 'bulk request'), 'bulk request').text('mode')) }
}

export function encodeBulkAnswer(answer: BulkAnswer): Uint8Array {
  if ('refused' in answer) return encodeCbor({ refused: answer.refused })
  return encodeCbor({ port: answer.port, id: answer.id, secret: answer.secret })
}

/** @throws invalid */
export function parseBulkAnswer(bytes: Uint8Array): BulkAnswer {
  const fields = new Fields(parseCbor(bytes, 'bulk answer'), 'bulk answer')
  if (fields.get('refused') !== undefined) return { refused: oneOf(bulkRefusals, fields.text('refused')) }
  const port = fields.unsigned('port', 65_535)
  const id = fields.bytes('id')
  const secret = fields.bytes('secret')
  if (port === 0 || id.length !== grantIdBytes || secret.length !== grantSecretBytes)
    throw new P2pfsError('invalid', 'bulk answer: not a grant')
  return { port, id: Uint8Array.from(id), secret: Uint8Array.from(secret) }
}

function oneOf<T extends string>(words: readonly T[], text: string): T {
  const word = words.find((candidate) => candidate === text)
  if (word === undefined) throw new P2pfsError('invalid', 'bulk message: unknown word')
  return word
}

/** In plain mode the first thing on a connection: the grant's id, and this proof of the asker. */
export function bulkAskerProof(secret: Uint8Array): Uint8Array {
  return createHmac('sha256', secret).update('p2pfs bulk asker 1').digest()
}

/** In plain mode the holder's answer to that. */
export function bulkHolderProof(secret: Uint8Array): Uint8Array {
  return createHmac('sha256', secret).update('p2pfs bulk holder 1').digest()
}

/** Bytes of either proof. */
export const bulkProofBytes = 32

/** Wants of one connection that have no answer yet. An asker that sends more breaks the protocol. */
export const maxBulkWants = 1024

/**
 * Orders of an asker on the connection: it wants a chunk; it no longer does; it wants it before all others; it wants one after all
 * that are wanted otherwise (`last`), as for a seed; it holds the chunk that it was sent, and may be named to others (`kept`).
 */
export const bulkOrders = { want: 1, cancel: 2, raise: 3, last: 4, kept: 5 } as const
/** A want of either kind with this bit is served in its turn: the asker has nobody else to ask. */
const waitsBit = 16
export type BulkOrder =
  | { order: 'want' | 'last'; id: number; digest: Digest; waits?: boolean }
  | { order: 'cancel' | 'raise' | 'kept'; id: number }

const orderOf = new Map<number, BulkOrder['order']>(
  (['want', 'cancel', 'raise', 'last', 'kept'] as const).map((order) => [bulkOrders[order], order]),
)
const orderHeaderBytes = 5
export const bulkWantBytes = orderHeaderBytes + digestBytes

/** A byte for the order, the id of the want (32 bit little-endian), and for a want of either kind the raw digest. */
export function encodeBulkOrder(order: BulkOrder): Uint8Array {
  const isWant = order.order === 'want' || order.order === 'last'
  const bytes = Buffer.alloc(isWant ? bulkWantBytes : orderHeaderBytes)
  bytes[0] = bulkOrders[order.order] | (isWant && order.waits === true ? waitsBit : 0)
  bytes.writeUInt32LE(order.id, 1)
  if (isWant) bytes.set(digestToBytes(order.digest), orderHeaderBytes)
  return bytes
}

/**
 * Reads the first order of `bytes`.
 * @returns undefined where it has not come whole
 * @throws invalid
 */
export function parseBulkOrder(bytes: Uint8Array): { order: BulkOrder; lengthBytes: number } | undefined {
  if (bytes.length === 0) return undefined
  const waits = (bytes[0]! & waitsBit) > 0
  const order = orderOf.get(bytes[0]! & ~waitsBit)
  const isWant = order === 'want' || order === 'last'
  if (order === undefined || (waits && !isWant)) throw new P2pfsError('invalid', 'bulk connection: unknown order')
  const lengthBytes = isWant ? bulkWantBytes : orderHeaderBytes
  if (bytes.length < lengthBytes) return undefined
  const id = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1, true)
  if (isWant) return { order: { order, id, digest: digestFromBytes(bytes, orderHeaderBytes), waits }, lengthBytes }
  return { order: { order, id }, lengthBytes }
}

/**
 * Every want has one answer: the chunk; the holder does not have it; the asker has cancelled it in time; the chunk in its trimmed
 * form (`zero-tails.ts`), which is shorter; too many want something, and others hold the chunk (`encodeHolders`).
 */
export const bulkStatuses = ['chunk', 'missing', 'cancelled', 'trimmed', 'elsewhere'] as const
export type BulkStatus = (typeof bulkStatuses)[number]

export interface BulkAnswerHeader {
  status: BulkStatus
  /** The id of the want. */
  id: number
  /** Bytes of the chunk, of its trimmed form, or of the holders, that follow; 0 where the status has none. */
  lengthBytes: number
}

/** The most bytes that follow an answer. */
function maxBytesOf(status: BulkStatus): number {
  if (status === 'elsewhere') return maxHoldersBytes
  return status === 'chunk' || status === 'trimmed' ? maxChunkBytes : 0
}

/** A byte for the status, the id and the length (each 32 bit little-endian). */
export const bulkAnswerHeaderBytes = 9

/** Writes the header into the first bytes of `target`. */
export function writeBulkAnswerHeader(target: Buffer, { status, id, lengthBytes }: BulkAnswerHeader): void {
  target[0] = bulkStatuses.indexOf(status)
  target.writeUInt32LE(id, 1)
  target.writeUInt32LE(lengthBytes, 5)
}

/** @param bytes `bulkAnswerHeaderBytes` of them @throws invalid */
export function parseBulkAnswerHeader(bytes: Uint8Array): BulkAnswerHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const status = bulkStatuses[view.getUint8(0)]
  const lengthBytes = view.getUint32(5, true)
  if (status === undefined) throw new P2pfsError('invalid', 'bulk answer: unknown status')
  const maxBytes = maxBytesOf(status)
  if (lengthBytes > maxBytes || lengthBytes > 0 !== maxBytes > 0)
    throw new P2pfsError('invalid', 'bulk answer: wrong length')
  return { status, id: view.getUint32(1, true), lengthBytes }
}
