import { Bitmap } from '../bitmap.ts'
import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import type { Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'

/** One long-lived stream in each direction of a connection. The first message is a hello. */
export const regionProtocol = '/p2pfs/region/1'

/** Longest message (bytes): the bitmap of a segment of eight million chunks, or thousands of members. */
export const maxRegionMessageBytes = 1024 * 1024
/** Members that one message names at most, and that a host remembers at most. */
export const maxMembers = 4096
/** Segments that one peer may announce. */
export const maxSegments = 65_536
/** Addresses of one member at most. */
export const maxAddresses = 32
const maxTextLength = 256

export interface Hello {
  type: 'hello'
  region: string
  name: string
  /** Multiaddrs on which this peer can be dialled. */
  addresses: string[]
}

/** A member, by its peer id, and the multiaddrs on which it can be dialled. */
export interface MemberAddresses {
  peer: string
  addresses: string[]
}

/** Members that the sender is connected to. */
export interface Members {
  type: 'members'
  members: MemberAddresses[]
}

/** All chunks of a segment that the sender holds. It replaces what the sender said of the segment before. */
export interface Have {
  type: 'have'
  /** Id of the segment's chunk table. */
  table: Digest
  held: Bitmap
}

/** Chunks of a segment that came to the sender, and that are no longer there. */
export interface HaveDelta {
  type: 'delta'
  /** Id of the segment's chunk table. */
  table: Digest
  /** Positions in the chunk table. */
  added: number[]
  removed: number[]
}

export type RegionMessage = Hello | Members | Have | HaveDelta

/** SPEC.md, "Region protocol". */
export function encodeRegionMessage(message: RegionMessage): Uint8Array {
  switch (message.type) {
    case 'have':
      return encodeCbor({ type: 'have', table: message.table, count: message.held.count, bits: message.held.bytes })
    case 'delta':
      return encodeCbor({ type: 'delta', table: message.table, added: message.added, removed: message.removed })
    case 'hello':
    case 'members':
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
    case 'members': {
      const members = fields.list('members')
      if (members.length > maxMembers) throw new P2pfsError('invalid', 'region message: too many members')
      return {
        type,
        members: members.map((value) => {
          const member = new Fields(value, 'member')
          return { peer: short(member.text('peer')), addresses: parseAddresses(member) }
        }),
      }
    }
    case 'have':
      return {
        type,
        table: fields.digest('table'),
        held: new Bitmap(fields.unsigned('count', maxRegionMessageBytes * 8), Uint8Array.from(fields.bytes('bits'))),
      }
    case 'delta':
      return {
        type,
        table: fields.digest('table'),
        added: parseIndexes(fields, 'added'),
        removed: parseIndexes(fields, 'removed'),
      }
    default:
      throw new P2pfsError('invalid', `region message: unknown type ${type.slice(0, 20)}`)
  }
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
