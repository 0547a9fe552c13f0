import * as nodeCrypto from 'node:crypto'
import { createRequire, syncBuiltinESMExports } from 'node:module'
import { createRandom } from '../../test/support/random.ts'
import { KnownSignatures } from './known-signatures.ts'

export type Random = ReturnType<typeof createRandom>

/**
 * Makes everything random of this process a function of the seed, and its hashes immediate: a pool of threads would
 * answer in an order of its own. Call it before the product's modules are loaded.
 * @returns random numbers of the model's own, which do not depend on how often the product takes one
 */
export function installRandom(seed: number): Random {
  const { createHash, createPublicKey, verify } = nodeCrypto
  const signatures = new KnownSignatures({ createPublicKey, verify })
  const product = createRandom(seed ^ 0x5bd1e995)
  Math.random = product.next
  const fill = <T extends ArrayBufferView>(view: T): T => {
    new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(product.bytes(view.byteLength))
    return view
  }
  const random = {
    randomBytes: (size: number) => product.bytes(size),
    randomFillSync: fill,
    randomInt: (min: number, max?: number) => (max === undefined ? product.below(min) : min + product.below(max - min)),
    randomUUID: () => product.bytes(16).toString('hex'),
    createPublicKey: signatures.createPublicKey,
    verify: signatures.verify,
  }
  Object.assign(createRequire(import.meta.url)('node:crypto') as object, random)
  syncBuiltinESMExports()
  crypto.getRandomValues = fill
  const contents = new KnownContents((bytes) => createHash('sha256').update(bytes).digest())
  crypto.subtle.digest = async (_algorithm, data) =>
    await Promise.resolve(new Uint8Array(contents.hash(data as Uint8Array)).buffer)
  return createRandom(seed)
}

/** Most contents that are remembered: the chunks of a few images. */
const maxKnown = 16_384

/**
 * Hashes of contents that were hashed before. A simulation sends the same chunks between thousands of hosts; comparing
 * bytes takes a tenth of hashing them, and finds every wrong byte as well.
 */
class KnownContents {
  readonly #hash: (bytes: Uint8Array) => Buffer
  readonly #known = new Map<string, { bytes: Uint8Array; hash: Buffer }>()

  constructor(hash: (bytes: Uint8Array) => Buffer) {
    this.#hash = hash
  }

  hash(bytes: Uint8Array): Buffer {
    const key = `${bytes.length} ${Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(16, bytes.length)).toString('hex')}`
    const known = this.#known.get(key)
    if (known !== undefined && Buffer.compare(known.bytes, bytes) === 0) return known.hash
    const hash = this.#hash(bytes)
    if (known === undefined && this.#known.size < maxKnown) this.#known.set(key, { bytes, hash })
    return hash
  }
}
