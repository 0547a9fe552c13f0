import { decode, encode } from 'cborg'
import { parseDigest, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'

/** Deterministic CBOR (RFC 8949, section 4.2.1): equal values have equal bytes, and so equal digests. */
export function encodeCbor(value: unknown): Uint8Array {
  return encode(value)
}

/** @throws invalid for anything but one strict CBOR item without tags and without undefined */
export function parseCbor(bytes: Uint8Array, record: string): unknown {
  try {
    return decode(bytes, {
      strict: true,
      rejectDuplicateMapKeys: true,
      allowUndefined: false,
      allowNaN: false,
      allowInfinity: false,
    })
  } catch (cause) {
    throw new P2pfsError('invalid', `${record}: not CBOR`, { cause })
  }
}

/** Reads the fields of a decoded record. It throws `invalid`, with the names of the record and the field. */
export class Fields {
  readonly #record: string
  readonly #values: Record<string, unknown> | unknown[]

  /** @param record its name in errors */
  constructor(value: unknown, record: string) {
    if (typeof value !== 'object' || value === null || value instanceof Uint8Array) {
      throw new P2pfsError('invalid', `${record}: not a record`)
    }
    this.#record = record
    this.#values = value as Record<string, unknown>
  }

  #fail(key: string | number, expected: string): never {
    throw new P2pfsError('invalid', `${this.#record}: ${key} is not ${expected}`)
  }

  get(key: string | number): unknown {
    return (this.#values as Record<string | number, unknown>)[key]
  }

  /** A safe integer from 0 to `max`. */
  unsigned(key: string | number, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.get(key)
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > max) {
      this.#fail(key, `a number from 0 to ${max}`)
    }
    return value
  }

  integer(key: string | number): number {
    const value = this.get(key)
    if (typeof value !== 'number' || !Number.isSafeInteger(value)) this.#fail(key, 'an integer')
    return value
  }

  text(key: string | number): string {
    const value = this.get(key)
    if (typeof value !== 'string') this.#fail(key, 'text')
    return value
  }

  bytes(key: string | number): Uint8Array {
    const value = this.get(key)
    if (!(value instanceof Uint8Array)) this.#fail(key, 'bytes')
    return value
  }

  list(key: string | number): unknown[] {
    const value = this.get(key)
    if (!Array.isArray(value)) this.#fail(key, 'a list')
    return value
  }

  digest(key: string | number): Digest {
    return parseDigest(this.get(key))
  }
}
