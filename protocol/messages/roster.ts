import { Fields } from '../cbor.ts'
import { P2pfsError } from '../errors.ts'
import type { SignedMemberRecord } from '../member-record.ts'

/** Buckets of the list of members that two hosts compare: by the first byte of SHA-256 of the peer id. */
export const rosterBuckets = 256
/** Length of the hash of one bucket in a digest (bytes). */
export const bucketHashBytes = 8
/** Members of one listing at most. */
export const maxListed = 8192

/** A member, and the sequence number of the record that the sender has of it. */
export interface Sighting {
  peer: string
  sequence: number
}

/** News of members that the sender has learned. */
export interface News {
  type: 'news'
  records: SignedMemberRecord[]
  /** Members that somebody cannot reach any more. They refute it with a record of a higher sequence number. */
  suspects: Sighting[]
}

/** Asks for a comparison of the lists of members. */
export interface RosterDigest {
  type: 'digest'
  /** {@link bucketHashBytes} for each bucket: all its members' hashes, by exclusive or. */
  buckets: Uint8Array
}

/** The answer to a digest: what the sender has in the buckets that differ. */
export interface Listing {
  type: 'listing'
  /** Numbers of the buckets. */
  buckets: Uint8Array
  members: Sighting[]
}

/** Asks for the records of members that the receiver has listed. */
export interface RecordWants {
  type: 'wants'
  members: string[]
}

export type RosterMessage = News | RosterDigest | Listing | RecordWants

export function isRosterMessage(message: { type: string }): message is RosterMessage {
  return ['news', 'digest', 'listing', 'wants'].includes(message.type)
}

/** @throws invalid */
export function parseRosterMessage(type: RosterMessage['type'], fields: Fields): RosterMessage {
  switch (type) {
    case 'news':
      return {
        type,
        records: fields.list('records').map((value) => {
          const record = new Fields(value, 'member record')
          return {
            claim: Uint8Array.from(record.bytes('claim')),
            signature: Uint8Array.from(record.bytes('signature')),
          }
        }),
        suspects: parseSightings(fields, 'suspects'),
      }
    case 'digest': {
      const buckets = Uint8Array.from(fields.bytes('buckets'))
      if (buckets.length !== rosterBuckets * bucketHashBytes)
        throw new P2pfsError('invalid', 'region message: wrong number of buckets')
      return { type, buckets }
    }
    case 'listing':
      return { type, buckets: Uint8Array.from(fields.bytes('buckets')), members: parseSightings(fields, 'members') }
    case 'wants': {
      const members = fields.list('members')
      const texts = new Fields(members, 'region message: wants')
      return { type, members: members.map((_, i) => texts.text(i)) }
    }
  }
}

function parseSightings(fields: Fields, key: string): Sighting[] {
  return fields.list(key).map((value) => {
    const sighting = new Fields(value, key)
    return { peer: sighting.text('peer'), sequence: sighting.unsigned('sequence') }
  })
}
