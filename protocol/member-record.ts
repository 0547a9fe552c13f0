import { isSigned, type Signer } from './attestation.ts'
import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import { P2pfsError } from './errors.ts'

/** A member's description of itself. */
export interface MemberRecord {
  region: string
  /** Peer id. */
  peer: string
  name: string
  /** Multiaddrs at which it can be dialled. */
  addresses: string[]
  /** The record with the highest one counts. Milliseconds since 1970 when it was made, or one more than the last. */
  sequence: number
  /** Whether the member has left the region. */
  hasLeft: boolean
}

/** A record as it is passed on. */
export interface SignedMemberRecord {
  /** The encoded record. */
  claim: Uint8Array
  /** Ed25519 (RFC 8032) of the member whom the record names, over the claim. */
  signature: Uint8Array
}

/** First field of what is signed: no other statement of the same key begins with it. */
const domain = 'p2pfs member record'

/** The bytes that are signed; SPEC.md, "Member record". */
export function encodeMemberRecord({ region, peer, name, addresses, sequence, hasLeft }: MemberRecord): Uint8Array {
  return encodeCbor({ statement: domain, version: 1, region, peer, name, addresses, sequence, hasLeft })
}

export async function signMemberRecord(record: MemberRecord, sign: Signer['sign']): Promise<SignedMemberRecord> {
  const claim = encodeMemberRecord(record)
  return { claim, signature: Uint8Array.from(await sign(claim)) }
}

/** Whether the member whom the record names has signed it. */
export function isMemberRecordSigned({ peer }: Pick<MemberRecord, 'peer'>, signed: SignedMemberRecord): boolean {
  return isSigned(signed.claim, { key: peer, signature: signed.signature })
}

/** @throws invalid */
export function parseMemberRecord(claim: Uint8Array): MemberRecord {
  const fields = new Fields(parseCbor(claim, 'member record'), 'member record')
  const addresses = fields.list('addresses')
  if (fields.text('statement') !== domain || fields.unsigned('version') !== 1)
    throw new P2pfsError('invalid', 'member record: another statement')
  const record = {
    region: fields.text('region'),
    peer: fields.text('peer'),
    name: fields.text('name'),
    addresses: addresses.map(String),
    sequence: fields.unsigned('sequence'),
    hasLeft: fields.get('hasLeft') === true,
  }
  const texts = [record.region, record.peer, record.name, ...record.addresses]
  if (addresses.length > 32 || texts.some(({ length }) => length > 256))
    throw new P2pfsError('invalid', 'member record: too long')
  return record
}
