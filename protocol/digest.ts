import { hash } from 'node:crypto'
import { P2pfsError } from './errors.ts'

/** `sha256:` and 64 lower-case hex digits, as in the OCI image spec. Only the functions of this file make one. */
export type Digest = string & { readonly __brand: 'Digest' }

/** Length of a raw SHA-256 (bytes). */
export const digestBytes = 32

const pattern = /^sha256:[0-9a-f]{64}$/

/** @throws invalid where `text` is not a SHA-256 digest */
export function parseDigest(text: unknown): Digest {
  if (typeof text !== 'string' || !pattern.test(text)) {
    throw new P2pfsError('invalid', `not a sha256 digest: ${String(text).slice(0, 80)}`)
  }
  return text as Digest
}

/** The SHA-256 of `bytes`. */
export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${hash('sha256', bytes, 'hex')}` as Digest
}

/** The digest whose 32 raw bytes are at `offset`. @throws invalid where there are fewer */
export function digestFromBytes(bytes: Uint8Array, offset = 0): Digest {
  if (bytes.length < offset + digestBytes) throw new P2pfsError('invalid', 'digest cut short')
  return `sha256:${Buffer.from(bytes.buffer, bytes.byteOffset + offset, digestBytes).toString('hex')}` as Digest
}

/** The 32 raw bytes of the digest. */
export function digestToBytes(digest: Digest): Uint8Array {
  return Buffer.from(digest.slice(7), 'hex')
}

/** The 64 hex digits of the digest, which name files and directories. */
export function digestHex(digest: Digest): string {
  return digest.slice(7)
}
