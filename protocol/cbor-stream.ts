import { isP2pfsError, P2pfsError } from './errors.ts'

/*
 * Deterministic CBOR (RFC 8949, section 4.2.1), item by item. Layer indexes have millions of items, so no tree of
 * values is built. There are integers, byte and text strings, arrays and maps of known length; the bytes are those that
 * cbor.ts makes.
 */
const majors = { unsigned: 0, negative: 1, bytes: 2, text: 3, array: 4, map: 5 } as const
/** The writer's buffer is doubled when it is full, but never grows by more than this (bytes). */
const maxGrowthBytes = 32 * 1024 * 1024

/** Writes items one after the other. */
export class CborWriter {
  #buffer = Buffer.allocUnsafeSlow(64 * 1024)
  #length = 0

  /** Bytes written so far. */
  get length(): number {
    return this.#length
  }

  /** A safe integer. */
  integer(value: number): this {
    return value < 0 ? this.#head(majors.negative, -1 - value) : this.#head(majors.unsigned, value)
  }

  bytes(value: Uint8Array): this {
    this.#head(majors.bytes, value.length)
    // The buffer may be another one after this line.
    const start = this.#reserve(value.length)
    this.#buffer.set(value, start)
    return this
  }

  /** A byte string, given with one character (U+0000 to U+00FF) per byte. */
  byteString(value: string): this {
    this.#head(majors.bytes, value.length)
    const start = this.#reserve(value.length)
    this.#buffer.write(value, start, 'latin1')
    return this
  }

  text(value: string): this {
    const length = Buffer.byteLength(value)
    this.#head(majors.text, length)
    const start = this.#reserve(length)
    this.#buffer.write(value, start)
    return this
  }

  /** Items that are encoded already. */
  encoded(items: Uint8Array): this {
    const offset = this.#reserve(items.length)
    this.#buffer.set(items, offset)
    return this
  }

  /** `count` items follow. */
  array(count: number): this {
    return this.#head(majors.array, count)
  }

  /** `count` pairs follow. The caller must write the keys in order: shorter ones first, then by bytes. */
  map(count: number): this {
    return this.#head(majors.map, count)
  }

  /** A copy of everything that was written. */
  finish(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#buffer.subarray(0, this.#length))
  }

  #head(major: number, value: number): this {
    const type = major << 5
    const start = this.#reserve(
      value < 24 ? 1 : value < 0x100 ? 2 : value < 0x1_0000 ? 3 : value < 0x1_0000_0000 ? 5 : 9,
    )
    const buffer = this.#buffer
    if (value < 24) buffer[start] = type | value
    else if (value < 0x100) {
      buffer[start] = type | 24
      buffer[start + 1] = value
    } else if (value < 0x1_0000) {
      buffer[start] = type | 25
      buffer.writeUInt16BE(value, start + 1)
    } else if (value < 0x1_0000_0000) {
      buffer[start] = type | 26
      buffer.writeUInt32BE(value, start + 1)
    } else {
      buffer[start] = type | 27
      buffer.writeUInt32BE(Math.floor(value / 0x1_0000_0000), start + 1)
      buffer.writeUInt32BE(value % 0x1_0000_0000, start + 5)
    }
    return this
  }

  /** @returns the offset in the buffer of the next `length` bytes */
  #reserve(length: number): number {
    const start = this.#length
    this.#length += length
    if (this.#length > this.#buffer.length) {
      const size = Math.max(this.#length, this.#buffer.length + Math.min(this.#buffer.length, maxGrowthBytes))
      const grown = Buffer.allocUnsafeSlow(size)
      this.#buffer.copy(grown, 0, 0, start)
      this.#buffer = grown
    }
    return start
  }
}

/** Whether a {@link CborReader} threw because its input ends too early: there may be more. */
export function isCutShort(error: unknown): boolean {
  return isP2pfsError(error, 'invalid') && error.details['cutShort'] === true
}

/**
 * Reads the items that {@link CborWriter} writes. For anything else it throws `invalid`, with the name of the record.
 */
export class CborReader {
  readonly #bytes: Buffer
  #record: string
  #offset = 0

  /** @param record its name in errors */
  constructor(bytes: Uint8Array, record: string) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#record = record
  }

  /** Bytes read so far. */
  get offset(): number {
    return this.#offset
  }

  fail(why: string): never {
    throw new P2pfsError('invalid', `${this.#record}: ${why}`)
  }

  /** Sets the name of the record in errors from here on. */
  within(record: string): void {
    this.#record = record
  }

  /** @param what the item's name in errors, as in all methods below */
  unsigned(what: string, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#head(majors.unsigned, what)
    return value <= max ? value : this.fail(`${what} is not a number from 0 to ${max}`)
  }

  integer(what: string): number {
    return (this.#bytes[this.#offset] ?? 0) >>> 5 === majors.negative
      ? -1 - this.#head(majors.negative, what)
      : this.#head(majors.unsigned, what)
  }

  /** The bytes, as a view of the input. */
  bytes(what: string): Uint8Array {
    const length = this.#head(majors.bytes, what)
    return this.#bytes.subarray(this.#take(length), this.#offset)
  }

  byteString(what: string): string {
    const length = this.#head(majors.bytes, what)
    return this.#bytes.toString('latin1', this.#take(length), this.#offset)
  }

  text(what: string): string {
    const length = this.#head(majors.text, what)
    return this.#bytes.toString('utf8', this.#take(length), this.#offset)
  }

  /** @returns how many items follow; not more than there is input for */
  array(what: string): number {
    return this.#count(this.#head(majors.array, what))
  }

  map(what: string): number {
    return this.#count(this.#head(majors.map, what))
  }

  finish(): void {
    if (this.#offset !== this.#bytes.length) this.fail('bytes follow its end')
  }

  #cutShort(): never {
    throw new P2pfsError('invalid', `${this.#record}: cut short`, { cutShort: true })
  }

  #count(value: number): number {
    return value <= this.#bytes.length - this.#offset ? value : this.#cutShort()
  }

  /** @returns the offset of the next `length` bytes, which are then behind the reader */
  #take(length: number): number {
    const start = this.#offset
    if (length > this.#bytes.length - start) this.#cutShort()
    this.#offset += length
    return start
  }

  #head(major: number, what: string): number {
    const first = this.#bytes[this.#offset]
    if (first === undefined) this.#cutShort()
    if (first >>> 5 !== major) this.fail(`${what} is of another type`)
    this.#offset++
    const short = first & 31
    if (short < 24) return short
    if (short > 27) this.fail(`${what} is not of a known length`)
    const length = 1 << (short - 24)
    const start = this.#take(length)
    const value =
      length === 8
        ? this.#bytes.readUInt32BE(start) * 0x1_0000_0000 + this.#bytes.readUInt32BE(start + 4)
        : this.#bytes.readUIntBE(start, length)
    if (!Number.isSafeInteger(value)) this.fail(`${what} is too large`)
    if (value < (length === 1 ? 24 : 2 ** (length * 4))) this.fail(`${what} is not in its shortest form`)
    return value
  }
}
