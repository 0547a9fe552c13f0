import { isSigned, parseSignature, type Signer } from './attestation.ts'
import { encodeCbor, Fields } from './cbor.ts'
import type { Digest } from './digest.ts'

/** The claim that a reference stands for this image manifest on this platform. */
export interface NameClaim {
  /** In canonical form, as in image records. */
  reference: string
  platform: string
  manifestDigest: Digest
}

/** The signature of a name claim, by the host that asked the registry, or made the image itself. */
export interface NameStatement {
  /** That host's peer id. */
  key: string
  /** Ed25519 (RFC 8032), over the encoded claim and its time. */
  signature: Uint8Array
  /** The time at which the registry answered (ms since 1970), by the clock of that host. */
  statedAtMs: number
}

/** First field of what is signed: no other statement of the same key begins with it. */
const domain = 'p2pfs name statement'

/** The bytes that are signed; SPEC.md, "Name statement". */
export function encodeNameClaim(
  { reference, platform, manifestDigest }: NameClaim,
  { statedAtMs }: Pick<NameStatement, 'statedAtMs'>,
): Uint8Array {
  return encodeCbor({ statement: domain, version: 1, reference, platform, manifest: manifestDigest, statedAtMs })
}

export async function stateName(claim: NameClaim, statedAtMs: number, { key, sign }: Signer): Promise<NameStatement> {
  return { key, signature: Uint8Array.from(await sign(encodeNameClaim(claim, { statedAtMs }))), statedAtMs }
}

/** Whether the owner of the key has signed this claim, with this time. The caller decides whether that key counts. */
export function isNameStated(claim: NameClaim, statement: NameStatement): boolean {
  return isSigned(encodeNameClaim(claim, statement), statement)
}

/** @throws invalid */
export function parseNameStatement(value: unknown): NameStatement {
  const fields = new Fields(value, 'name statement')
  return { ...parseSignature(fields, 'name statement'), statedAtMs: fields.unsigned('statedAtMs') }
}
