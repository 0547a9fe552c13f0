import { createPublicKey, verify } from 'node:crypto'
import { encodeCbor, Fields } from './cbor.ts'
import type { Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'
import { formatVersion } from './layer-index.ts'
import { parseKey, publicKeyOf } from './peer-key.ts'
import type { RootfsFormat } from './rootfs-manifest.ts'

/** The claim that an image, built in this format by format version {@link formatVersion}, is this rootfs. */
export interface Statement {
  /** Digest of the image manifest of one platform. */
  manifestDigest: Digest
  format: RootfsFormat
  rootfsDigest: Digest
}

/** The signature of a statement. */
export interface Attestation {
  /** The maker's peer id, as `p2pfs status` shows it: an Ed25519 public key. */
  key: string
  /** Ed25519 (RFC 8032), over the encoded statement. */
  signature: Uint8Array
  /**
   * Present where the maker has not read all layers: he made the rootfs of layer indexes that members told him, and says
   * so in what he signs.
   */
  told?: true
}

/** Signs with the key of one peer. */
export interface Signer {
  key: string
  sign: (bytes: Uint8Array) => Promise<Uint8Array>
}

/** First field of a statement. A peer's key also signs handshakes of libp2p, which begin with another text. */
const domain = 'p2pfs index attestation'
const signatureBytes = 64

/** The bytes that are signed; SPEC.md, "Attestation". */
export function encodeStatement(
  { manifestDigest, format, rootfsDigest }: Statement,
  { told }: Pick<Attestation, 'told'> = {},
): Uint8Array {
  return encodeCbor({
    statement: domain,
    version: formatVersion,
    manifest: manifestDigest,
    format,
    rootfs: rootfsDigest,
    ...(told && { told }),
  })
}

/** @param options `told`: whether the rootfs was made of layer indexes that members told */
export async function attest(
  statement: Statement,
  { key, sign }: Signer,
  { told = false }: { told?: boolean } = {},
): Promise<Attestation> {
  const basis = told ? ({ told } as const) : {}
  return { key, signature: Uint8Array.from(await sign(encodeStatement(statement, basis))), ...basis }
}

/** Whether the owner of the key has signed this statement. The caller decides whether that key counts. */
export function isAttested(statement: Statement, attestation: Attestation): boolean {
  return isSigned(encodeStatement(statement, attestation), attestation)
}

/** Whether the owner of the key has signed these bytes. */
export function isSigned(bytes: Uint8Array, { key, signature }: Pick<Attestation, 'key' | 'signature'>): boolean {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(publicKeyOf(key)).toString('base64url') }
  return (
    signature.length === signatureBytes && verify(null, bytes, createPublicKey({ key: jwk, format: 'jwk' }), signature)
  )
}

/** @throws invalid */
export function parseAttestation(value: unknown): Attestation {
  const fields = new Fields(value, 'attestation')
  const told = fields.get('told')
  if (told !== undefined && told !== true) throw new P2pfsError('invalid', 'attestation: told is not true')
  return { ...parseSignature(fields, 'attestation'), ...(told && { told }) }
}

/** The fields of a signature and its key. @throws invalid */
export function parseSignature(fields: Fields, what: string): { key: string; signature: Uint8Array } {
  const signature = fields.bytes('signature')
  if (signature.length !== signatureBytes)
    throw new P2pfsError('invalid', `${what}: a signature has ${signatureBytes} bytes`)
  return { key: parseKey(fields.text('key')), signature: Uint8Array.from(signature) }
}
