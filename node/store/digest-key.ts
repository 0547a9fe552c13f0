import { randomBytes } from 'node:crypto'
import { digestBytes, digestHex, type Digest } from '../../protocol/digest.ts'

const words = digestBytes / 4

/** The raw digests that stand back to back in these bytes, as tables of digests read them. */
export function digestView(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Whether the digests at these offsets (bytes) are the same. */
export function isSameDigest(first: DataView, at: number, second: DataView, atSecond: number): boolean {
  for (let i = 0; i < digestBytes; i += 4) if (first.getUint32(at + i) !== second.getUint32(atSecond + i)) return false
  return true
}

/**
 * Numbers for digests, as a table of them needs. Peers choose the digests of tables that this host tracks; they do not
 * know the multipliers, so they cannot choose digests that get equal numbers (multilinear hashing, Lemire and Kaser
 * 2014).
 */
export class DigestHash {
  readonly #multipliers = new Uint32Array(words)

  constructor() {
    randomBytes(this.#multipliers.byteLength).copy(Buffer.from(this.#multipliers.buffer))
    for (let i = 0; i < words; i++) this.#multipliers[i]! |= 1
  }

  /** @returns 32 bits, of which the highest are the best */
  of(digests: DataView, at: number): number {
    let sum = 0
    for (let i = 0; i < words; i++) sum = (sum + Math.imul(digests.getUint32(at + i * 4), this.#multipliers[i]!)) | 0
    return sum >>> 0
  }
}

/** One digest as raw bytes, to look it up. */
export class DigestKey {
  readonly #bytes = Buffer.alloc(digestBytes)
  readonly #view = digestView(this.#bytes)

  /** @returns a view of the digest, which the next call changes */
  of(digest: Digest): DataView {
    this.#bytes.write(digestHex(digest), 'hex')
    return this.#view
  }
}
