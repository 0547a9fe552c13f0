import { P2pfsError } from './errors.ts'

/*
 * Deterministic CBOR (RFC 8949, section 4.2.1) without a tree of values in between: layer indexes have millions of items.
 * Integers, byte and text strings, arrays and maps of known length; the same bytes as cbor.ts makes.
 */
const majors = { unsigned: 0, negative: 1, bytes: 2, text: 3, array: 4, map: 5 } as const
/** Growth of the writer's buffer: doubled up to this, then by this, bytes. */
const maxGrowthBytes = 32 * 1024 * 1024

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
    // First: the buffer may be another one after it.
    const at = this.#reserve(value.length)
    this.#buffer.set(value, at)
    return this
  }

  /** One byte per character, U+0000 to U+00FF. */
  byteString(value: string): this {
    this.#head(majors.bytes, value.length)
    const at = this.#reserve(value.length)
    this.#buffer.write(value, at, 'latin1')
    return this
  }

  text(value: string): this {
    const length = Buffer.byteLength(value)
    this.#head(majors.text, length)
    const at = this.#reserve(length)
    this.#buffer.write(value, at)
    return this
  }

  /** `count` items follow. */
  array(count: number): this {
    return this.#head(majors.array, count)
  }

  /** `count` pairs follow; the caller sees to the order of keys: shorter first, then by bytes. */
  map(count: number): this {
    return this.#head(majors.map, count)
  }

  /** A buffer of its own: what has been written. */
  finish(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#buffer.subarray(0, this.#length))
  }

  #head(major: number, value: number): this {
    const type = major << 5
    const at = this.#reserve(value < 24 ? 1 : value < 0x100 ? 2 : value < 0x1_0000 ? 3 : value < 0x1_0000_0000 ? 5 : 9)
    const buffer = this.#buffer
    if (value < 24) buffer[at] = type | value
    else if (value < 0x100) {
      buffer[at] = type | 24
      buffer[at + 1] = value
    } else if (value < 0x1_0000) {
      buffer[at] = type | 25
      buffer.writeUInt16BE(value, at + 1)
    } else if (value < 0x1_0000_0000) {
      buffer[at] = type | 26
      buffer.writeUInt32BE(value, at + 1)
    } else {
      buffer[at] = type | 27
      buffer.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at + 1)
      buffer.writeUInt32BE(value % 0x1_0000_0000, at + 5)
    }
    return this
  }

  /** @returns where the next `length` bytes go */
  #reserve(length: number): number {
    const at = this.#length
    this.#length += length
    if (this.#length > this.#buffer.length) {
      const size = Math.max(this.#length, this.#buffer.length + Math.min(this.#buffer.length, maxGrowthBytes))
      const grown = Buffer.allocUnsafeSlow(size)
      this.#buffer.copy(grown, 0, 0, at)
      this.#buffer = grown
    }
    return at
  }
}

/** Reads what {@link CborWriter} writes; throws `invalid`, naming `what`, for anything else. */
export class CborReader {
  readonly #bytes: Buffer
  #what: string
  #at = 0

  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#what = what
  }

  fail(why: string): never {
    throw new P2pfsError('invalid', `${this.#what}: ${why}`)
  }

  /** What errors name from here on. */
  within(what: string): void {
    this.#what = what
  }

  unsigned(what: string, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#head(majors.unsigned, what)
    return value <= max ? value : this.fail(`${what} is not a number from 0 to ${max}`)
  }

  integer(what: string): number {
    return (this.#bytes[this.#at] ?? 0) >>> 5 === majors.negative
      ? -1 - this.#head(majors.negative, what)
      : this.#head(majors.unsigned, what)
  }

  /** A view of the input. */
  bytes(what: string): Uint8Array {
    const length = this.#head(majors.bytes, what)
    return this.#bytes.subarray(this.#take(length), this.#at)
  }

  byteString(what: string): string {
    const length = this.#head(majors.bytes, what)
    return this.#bytes.toString('latin1', this.#take(length), this.#at)
  }

  text(what: string): string {
    const length = this.#head(majors.text, what)
    return this.#bytes.toString('utf8', this.#take(length), this.#at)
  }

  /** @returns how many items follow; not more than there is input for */
  array(what: string): number {
    return this.#count(this.#head(majors.array, what))
  }

  map(what: string): number {
    return this.#count(this.#head(majors.map, what))
  }

  finish(): void {
    if (this.#at !== this.#bytes.length) this.fail('more bytes than it has')
  }

  #count(value: number): number {
    return value <= this.#bytes.length - this.#at ? value : this.fail('cut short')
  }

  #take(length: number): number {
    const at = this.#at
    if (length > this.#bytes.length - at) this.fail('cut short')
    this.#at += length
    return at
  }

  #head(major: number, what: string): number {
    const first = this.#bytes[this.#at]
    if (first === undefined) this.fail('cut short')
    if (first >>> 5 !== major) this.fail(`${what} is of another type`)
    this.#at++
    const short = first & 31
    if (short < 24) return short
    if (short > 27) this.fail(`${what} is not of a known length`)
    const length = 1 << (short - 24)
    const at = this.#take(length)
    const value =
      length === 8
        ? this.#bytes.readUInt32BE(at) * 0x1_0000_0000 + this.#bytes.readUInt32BE(at + 4)
        : this.#bytes.readUIntBE(at, length)
    if (!Number.isSafeInteger(value)) this.fail(`${what} is too large`)
    if (value < (length === 1 ? 24 : 2 ** (length * 4))) this.fail(`${what} is not in its shortest form`)
    return value
  }
}
