import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import { digestBytes, digestFromBytes, digestToBytes, type Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'
import { maxAddresses, maxTextLength, type MemberAddresses } from './region.ts'

/** One question of a guest, and one answer, per stream. A guest is a host of another region. */
export const guestProtocol = '/p2pfs/guest/1'

/** Longest question (bytes): a name, a region, and a table. */
export const maxGuestQuestionBytes = 2048
/** Longest answer (bytes): eight members of 32 addresses. */
export const maxGuestAnswerBytes = 128 * 1024
/** Members that an answer names at most: as many as a guest connects to. */
export const maxNamedMembers = 8

/** A question: which members hold chunks of a segment? */
export interface GuestQuestion {
  /** The guest's host and region, for the status of the member. */
  name: string
  region: string
  /** Id of the segment's chunk table. */
  table: Digest
}

/** Members to ask, those that are known to hold chunks of the segment first. */
export interface GuestAnswer {
  members: MemberAddresses[]
}

/** SPEC.md, "Guest protocol". */
export function encodeGuestQuestion({ name, region, table }: GuestQuestion): Uint8Array {
  return encodeCbor({ name, region, table: digestToBytes(table) })
}

/** @throws invalid */
export function parseGuestQuestion(bytes: Uint8Array): GuestQuestion {
  const fields = new Fields(parseCbor(bytes, 'guest question'), 'guest question')
  const table = fields.bytes('table')
  if (table.length !== digestBytes) throw new P2pfsError('invalid', 'guest question: table is no digest')
  return { name: short(fields.text('name')), region: short(fields.text('region')), table: digestFromBytes(table) }
}

export function encodeGuestAnswer({ members }: GuestAnswer): Uint8Array {
  return encodeCbor({ members: members.slice(0, maxNamedMembers) })
}

/** @throws invalid */
export function parseGuestAnswer(bytes: Uint8Array): GuestAnswer {
  const members = new Fields(parseCbor(bytes, 'guest answer'), 'guest answer').list('members')
  if (members.length > maxNamedMembers) throw new P2pfsError('invalid', 'guest answer: too many members')
  return {
    members: members.map((value) => {
      const fields = new Fields(value, 'guest answer')
      const list = fields.list('addresses')
      if (list.length > maxAddresses) throw new P2pfsError('invalid', 'guest answer: too many addresses')
      const addresses = new Fields(list, 'guest answer')
      return { peer: short(fields.text('peer')), addresses: list.map((_, i) => short(addresses.text(i))) }
    }),
  }
}

function short(text: string): string {
  if (text.length > maxTextLength) throw new P2pfsError('invalid', 'guest message: text is too long')
  return text
}
