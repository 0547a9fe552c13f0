import { Bitmap } from '../bitmap.ts'
import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import type { Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'

/** One long-lived stream each way per connection; the first message is a hello. */
export const regionProtocol = '/p2pfs/region/1'

/** Longest message: a bitmap of eight million chunks, or a region of thousands, bytes. */
export const maxRegionMessageBytes = 1024 * 1024
/** Members that one message names at most, and that a host remembers. */
export const maxMembers = 4096
/** Regions of which a peer may say what it holds. */
export const maxTables = 65_536
/** Addresses of one member. */
export const maxAddresses = 32
const maxTextLength = 256

export interface Hello {
  type: 'hello'
  region: string
  name: string
  /** Multiaddrs on which this peer can be dialled. */
  addresses: string[]
}

export interface Member {
  peer: string
  addresses: string[]
}

/** Others that the sender is connected to. */
export interface Members {
  type: 'members'
  members: Member[]
}

/** All that the sender holds of a region; replaces what it said before. */
export interface Have {
  type: 'have'
  table: Digest
  held: Bitmap
}

/** Changes since the last have. */
export interface HaveDelta {
  type: 'delta'
  table: Digest
  /** Chunk numbers. */
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
