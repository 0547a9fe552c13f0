import { KeyObject, type JsonWebKeyInput, type verify } from 'node:crypto'

/** Most keys, and most signatures, that are remembered: a few of each host of a large region. */
const maxKnown = 65_536

interface Known {
  key: unknown
  bytes: Buffer
  isRight: boolean
}

/**
 * Signatures that were verified before. Each host of a region verifies the record of each other host, so that the same
 * few thousand signatures are verified millions of times. Keys, bytes and signatures are compared whole.
 */
export class KnownSignatures {
  readonly #original: { createPublicKey: (input: JsonWebKeyInput) => KeyObject; verify: typeof verify }
  readonly #keys = new Map<string, KeyObject>()
  readonly #known = new Map<string, Known>()

  constructor(original: { createPublicKey: (input: JsonWebKeyInput) => KeyObject; verify: typeof verify }) {
    this.#original = original
  }

  /** As `createPublicKey` of Node: one object for each Ed25519 key that is given as JWK. */
  createPublicKey = (input: JsonWebKeyInput): KeyObject => {
    const { key, format } = input
    if (format !== 'jwk' || key.crv !== 'Ed25519' || key.x === undefined) return this.#original.createPublicKey(input)
    const known = this.#keys.get(key.x)
    if (known !== undefined) return known
    const created = this.#original.createPublicKey(input)
    if (this.#keys.size < maxKnown) this.#keys.set(key.x, created)
    return created
  }

  /** As `verify` of Node, without a callback. */
  verify = (algorithm: null, bytes: Uint8Array, key: KeyObject, signature: Uint8Array): boolean => {
    if (algorithm !== null || !(key instanceof KeyObject))
      return this.#original.verify(algorithm, bytes, key, signature)
    const place = Buffer.from(signature).toString('latin1')
    const known = this.#known.get(place)
    if (known?.key === key && Buffer.compare(known.bytes, bytes) === 0) return known.isRight
    const isRight = this.#original.verify(algorithm, bytes, key, signature)
    if (known === undefined && this.#known.size < maxKnown)
      this.#known.set(place, { key, bytes: Buffer.from(bytes), isRight })
    return isRight
  }
}
