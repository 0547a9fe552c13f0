import type { Bitmap } from '../bitmap.ts'
import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import { digestBytes, digestFromBytes, digestToBytes, type Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'
import { parseRosterMessage, type News, type RosterMessage } from './roster.ts'

/** One long-lived stream in each direction of a connection. The first message is a hello. */
export const regionProtocol = '/p2pfs/region/3'

/** Longest message (bytes). Senders split what is longer. */
export const maxRegionMessageBytes = 1024 * 1024
/**
 * Messages of one stream: a sender keeps to it, and a receiver bans a peer that sends more than twice as many. Twice,
 * because messages that were held up on the way come at once: a connection that is held up for ten seconds has ended.
 * Haves and deltas of many segments are one message, so an honest host sends a few dozen in a second.
 */
export const regionMessageRate = { perSecond: 256, burst: 8192 } as const
/** Segments that one query names at most. */
export const maxTablesPerQuery = 1024
/** Queries of one stream that are not answered yet. A host that sends more breaks the protocol. */
export const maxOpenQueries = 4
/** Addresses of one member at most. */
export const maxAddresses = 32
/** Longest region, name, peer id and address (UTF-16 code units). */
export const maxTextLength = 256

/** A message that can be split is this long, or as long as its first part (bytes): it is sent in some milliseconds. */
const packedBytes = 64 * 1024
/** Bytes of a bitmap that stand in one part of a have: two million chunks. */
const maxPartBytes = 256 * 1024
/** Positions in one part of a delta: five bytes each. */
const maxPartIndexes = 32_768
/** More than what a part takes besides its bitmap, positions or addresses (bytes). */
const partOverheadBytes = 128
/** More than what an address takes besides its text (bytes). */
const addressOverheadBytes = 4

export interface Hello {
  type: 'hello'
  region: string
  name: string
  /** Multiaddrs on which this peer can be dialled. */
  addresses: string[]
}

/** A member, by its peer id, and the multiaddrs on which it can be dialled. It is no message. */
export interface MemberAddresses {
  peer: string
  addresses: string[]
}

/** Asks what the receiver holds of these segments, and for changes of it from now on. */
export interface Query {
  type: 'query'
  /** Ids of the segments' chunk tables. */
  tables: Digest[]
}

/** The oldest query that was open is answered: its haves have been sent. */
export interface Answered {
  type: 'answered'
}

/**
 * Chunks of a segment that the sender holds. The part with `first` 0 replaces what the sender said of the segment
 * before; other parts add to it.
 */
export interface HavePart {
  /** Id of the segment's chunk table. */
  table: Digest
  /** Chunks of the segment. */
  count: number
  /** Position of the first chunk that `bits` speaks of: a multiple of 8. */
  first: number
  /** Bit `i`, lowest of each byte first, is chunk `first + i`. Chunks after the last byte are not held. */
  bits: Uint8Array
}

export interface Have {
  type: 'have'
  tables: HavePart[]
}

/** Chunks of a segment that came to the sender, and that are no longer there. */
export interface DeltaPart {
  /** Id of the segment's chunk table. */
  table: Digest
  /** Positions in the chunk table. */
  added: number[]
  removed: number[]
}

export interface HaveDelta {
  type: 'delta'
  tables: DeltaPart[]
}

export type RegionMessage = Hello | RosterMessage | Query | Answered | Have | HaveDelta

/**
 * A hello that the protocol allows: a name that is too long is cut, and addresses that are too long or too many are
 * left out.
 */
export function fittingHello({ region, name, addresses }: Omit<Hello, 'type'>): Hello {
  return {
    type: 'hello',
    region,
    // A surrogate pair that is cut in two would be no text.
    name: name.slice(0, maxTextLength).replace(/[\uD800-\uDBFF]$/, ''),
    addresses: addresses.filter(({ length }) => length <= maxTextLength).slice(0, maxAddresses),
  }
}

/** Any news of members, as messages that are not too long. */
export function newsMessages({ records, suspects }: Omit<News, 'type'>): News[] {
  return [
    ...pack(records, ({ claim }) => claim.length + partOverheadBytes).map((some) => {
      return { type: 'news' as const, records: some, suspects: [] }
    }),
    ...pack(suspects, ({ peer }) => peer.length + addressOverheadBytes + partOverheadBytes).map((some) => {
      return { type: 'news' as const, records: [], suspects: some }
    }),
  ]
}

/** Splits the chunks that are held of a segment into parts that each fit into a message. It copies the bitmap. */
export function haveParts(table: Digest, held: Bitmap): HavePart[] {
  const end = held.bytes.findLastIndex((byte) => byte !== 0) + 1
  const parts: HavePart[] = []
  for (let start = 0; start === 0 || start < end; start += maxPartBytes) {
    const bits = held.bytes.slice(start, Math.min(start + maxPartBytes, end))
    parts.push({ table, count: held.count, first: start * 8, bits })
  }
  return parts
}

/** Whether parts of a have are enough for one message. */
export function isFullHave(parts: readonly HavePart[]): boolean {
  return parts.reduce((sum, { bits }) => sum + bits.length + partOverheadBytes, 0) >= packedBytes
}

/** Any parts of haves, as messages that are not too long. */
export function haveMessages(parts: readonly HavePart[]): Have[] {
  return pack(parts, ({ bits }) => bits.length + partOverheadBytes).map((tables) => ({ type: 'have', tables }))
}

/** Any changes of any segments, as messages that are not too long. */
export function deltaMessages(changes: readonly DeltaPart[]): HaveDelta[] {
  const parts = changes.flatMap(({ table, added, removed }) => [
    ...slices(added).map((some) => ({ table, added: some, removed: [] as number[] })),
    ...slices(removed).map((some) => ({ table, added: [] as number[], removed: some })),
  ])
  const sizeOf = ({ added, removed }: DeltaPart): number => (added.length + removed.length) * 5 + partOverheadBytes
  return pack(parts, sizeOf).map((tables) => ({ type: 'delta', tables }))
}

function slices(indexes: readonly number[]): number[][] {
  const count = Math.ceil(indexes.length / maxPartIndexes)
  return Array.from({ length: count }, (_, i) => indexes.slice(i * maxPartIndexes, (i + 1) * maxPartIndexes))
}

/** Runs of items; one is longer than {@link packedBytes} only where it is a single item. */
function pack<T>(items: readonly T[], sizeOf: (item: T) => number): T[][] {
  const packed: T[][] = []
  let roomBytes = 0
  for (const item of items) {
    const sizeBytes = sizeOf(item)
    if (sizeBytes > roomBytes) {
      packed.push([])
      roomBytes = packedBytes
    }
    packed.at(-1)!.push(item)
    roomBytes -= sizeBytes
  }
  return packed
}

/** SPEC.md, "Region protocol". */
export function encodeRegionMessage(message: RegionMessage): Uint8Array {
  switch (message.type) {
    case 'query':
      return encodeCbor({ type: message.type, tables: Buffer.concat(message.tables.map(digestToBytes)) })
    case 'have':
    case 'delta':
      return encodeCbor({
        type: message.type,
        tables: message.tables.map((part) => ({ ...part, table: digestToBytes(part.table) })),
      })
    case 'hello':
    case 'news':
    case 'digest':
    case 'listing':
    case 'wants':
    case 'answered':
      return encodeCbor(message)
  }
}

/** @throws invalid */
export function parseRegionMessage(bytes: Uint8Array): RegionMessage {
  const fields = new Fields(parseCbor(bytes, 'region message'), 'region message')
  const type = fields.text('type')
  switch (type) {
    case 'hello':
      return {
        type,
        region: short(fields.text('region')),
        name: short(fields.text('name')),
        addresses: parseAddresses(fields),
      }
    case 'news':
    case 'digest':
    case 'listing':
    case 'wants':
      return parseRosterMessage(type, fields)
    case 'query':
      return { type, tables: parseTables(fields.bytes('tables')) }
    case 'answered':
      return { type }
    case 'have':
      return { type, tables: fields.list('tables').map((value) => parseHavePart(new Fields(value, 'have'))) }
    case 'delta':
      return {
        type,
        tables: fields.list('tables').map((value) => {
          const part = new Fields(value, 'delta')
          return { table: parseTable(part), added: parseIndexes(part, 'added'), removed: parseIndexes(part, 'removed') }
        }),
      }
    default:
      throw new P2pfsError('invalid', `region message: unknown type ${type.slice(0, 20)}`)
  }
}

function parseHavePart(fields: Fields): HavePart {
  const table = parseTable(fields)
  const count = fields.unsigned('count')
  const first = fields.unsigned('first')
  const bits = Uint8Array.from(fields.bytes('bits'))
  if (first % 8 !== 0 || first + bits.length * 8 - count > 7)
    throw new P2pfsError('invalid', 'region message: bits stand beyond the end of the segment')
  return { table, count, first, bits }
}

function parseTables(bytes: Uint8Array): Digest[] {
  if (bytes.length === 0 || bytes.length % digestBytes !== 0 || bytes.length > maxTablesPerQuery * digestBytes)
    throw new P2pfsError('invalid', 'region message: wrong number of tables')
  return Array.from({ length: bytes.length / digestBytes }, (_, i) => digestFromBytes(bytes, i * digestBytes))
}

function parseTable(fields: Fields): Digest {
  const bytes = fields.bytes('table')
  if (bytes.length !== digestBytes) throw new P2pfsError('invalid', 'region message: table is no digest')
  return digestFromBytes(bytes)
}

function parseAddresses(fields: Fields): string[] {
  const addresses = fields.list('addresses')
  if (addresses.length > maxAddresses) throw new P2pfsError('invalid', 'region message: too many addresses')
  return addresses.map((address) => {
    if (typeof address !== 'string') throw new P2pfsError('invalid', 'region message: address is not text')
    return short(address)
  })
}

function parseIndexes(fields: Fields, key: string): number[] {
  const list = fields.list(key)
  const numbers = new Fields(list, `region message: ${key}`)
  return list.map((_, i) => numbers.unsigned(i))
}

function short(text: string): string {
  if (text.length > maxTextLength) throw new P2pfsError('invalid', 'region message: text is too long')
  return text
}
