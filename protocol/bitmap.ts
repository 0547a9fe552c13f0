import { P2pfsError } from './errors.ts'

/** The chunks of a segment that are held. Bit `i` of the bytes, lowest first, is chunk `i`. */
export class Bitmap {
  readonly count: number
  /** `ceil(count / 8)` bytes; bits beyond `count` are 0. */
  readonly bytes: Uint8Array

  /** @throws invalid where `bytes` does not fit `count` */
  constructor(count: number, bytes: Uint8Array = new Uint8Array(Math.ceil(count / 8))) {
    const spare = bytes.length * 8 - count
    if (spare < 0 || spare > 7 || (spare > 0 && bytes.at(-1)! >>> (8 - spare) !== 0)) {
      throw new P2pfsError('invalid', `bitmap of ${count} bits has the wrong length, or bits set beyond its end`)
    }
    this.count = count
    this.bytes = bytes
  }

  get(index: number): boolean {
    return index < this.count && (this.bytes[index >>> 3]! & (1 << (index & 7))) !== 0
  }

  /** Whether all bits are set. */
  get isFull(): boolean {
    const whole = this.count >>> 3
    for (let i = 0; i < whole; i++) if (this.bytes[i] !== 0xff) return false
    const rest = this.count & 7
    return rest === 0 || this.bytes[whole] === (1 << rest) - 1
  }

  /** How many bits are set. */
  get ones(): number {
    let ones = 0
    for (let byte of this.bytes) for (; byte !== 0; byte &= byte - 1) ones++
    return ones
  }

  set(index: number): void {
    this.bytes[index >>> 3]! |= 1 << (index & 7)
  }

  clear(index: number): void {
    this.bytes[index >>> 3]! &= ~(1 << (index & 7))
  }
}
