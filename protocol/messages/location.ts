import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import { digestBytes, digestFromBytes, digestOf, digestToBytes, type Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'
import type { ImageName } from '../image-record.ts'

/** One request and one answer per stream. */
export const locationProtocol = '/p2pfs/location/1'

/** Members that keep who holds a key. Two may be lost at once. */
export const trackersPerKey = 3
/** Keys of one request at most. */
export const maxKeysPerRequest = 1024
/** Keys of one request that asks for members at most. */
export const maxKeysPerQuestion = 64
/** Members that are named for one key at most. */
export const maxMembersPerKey = 32
/** Longest request (bytes): 33 for each key, and some more. */
export const maxLocationRequestBytes = 40 * 1024
/** Longest answer (bytes): ids of 64 bytes, and some more. */
export const maxLocationAnswerBytes = 160 * 1024
/** Longest peer id (UTF-16 code units). */
const maxIdLength = 128

/** Statements of a host about itself and a key. */
export const holds = {
  /** Nothing. */
  unsaid: 0,
  /** It has nothing to do with the key any more. */
  nothing: 1,
  /** It tracks the segment, and holds less than half of its chunks. */
  some: 2,
  /** It holds half of the segment's chunks or more, or the object. */
  much: 3,
} as const
export type Holds = (typeof holds)[keyof typeof holds]

export interface LocationRequest {
  keys: { key: Digest; holds: Holds }[]
  /** Members wanted for each key: 0 to {@link maxMembersPerKey}. */
  wanted: number
  /** Decides which hosts are named first: an asker to whom these were of no use sends another number, and gets others. */
  order: number
}

/** Peer ids for each key of the request; none where no members are wanted. */
export type LocationAnswer = string[][]

/** The key of an image's name: who has a record of it. */
export function nameKey({ reference, platform, format }: ImageName): Digest {
  return digestOf(Buffer.from(`p2pfs name\0${platform}\0${format}\0${reference}`))
}

/** SPEC.md, "Location protocol". */
export function encodeLocationRequest({ keys, wanted, order }: LocationRequest): Uint8Array {
  return encodeCbor({
    keys: Buffer.concat(keys.map(({ key }) => digestToBytes(key))),
    holds: Uint8Array.from(keys, (said) => said.holds),
    wanted,
    order,
  })
}

/** @throws invalid */
export function parseLocationRequest(bytes: Uint8Array): LocationRequest {
  const fields = new Fields(parseCbor(bytes, 'location request'), 'location request')
  const raw = fields.bytes('keys')
  const said = fields.bytes('holds')
  const wanted = fields.unsigned('wanted')
  const order = fields.unsigned('order')
  const count = raw.length / digestBytes
  const most = wanted === 0 ? maxKeysPerRequest : maxKeysPerQuestion
  if (!Number.isInteger(count) || count === 0 || count > most || said.length !== count)
    throw new P2pfsError('invalid', 'location request: wrong number of keys')
  if (wanted > maxMembersPerKey || said.some((value) => value > holds.much))
    throw new P2pfsError('invalid', 'location request: a number is too large')
  return {
    keys: Array.from(said, (value, i) => ({ key: digestFromBytes(raw, i * digestBytes), holds: value as Holds })),
    wanted,
    order,
  }
}

export function encodeLocationAnswer(answer: LocationAnswer): Uint8Array {
  return encodeCbor({ members: answer })
}

/** @throws invalid also where it is not the answer to such a request */
export function parseLocationAnswer(bytes: Uint8Array, { keys, wanted }: LocationRequest): LocationAnswer {
  const fields = new Fields(parseCbor(bytes, 'location answer'), 'location answer')
  const lists = fields.list('members')
  if (lists.length !== (wanted === 0 ? 0 : keys.length))
    throw new P2pfsError('invalid', 'location answer: wrong number of keys')
  return lists.map((list) => {
    if (!Array.isArray(list) || list.length > wanted)
      throw new P2pfsError('invalid', 'location answer: wrong number of members')
    return list.map((id: unknown) => {
      if (typeof id !== 'string' || id.length > maxIdLength)
        throw new P2pfsError('invalid', 'location answer: a member is no peer id')
      return id
    })
  })
}
