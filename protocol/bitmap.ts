import { P2pfsError } from './errors.ts'

/** Which chunks of a region are held: bit `i` of the bytes, lowest first, is chunk `i`. */
export class Bitmap {
  readonly count: number
  /** `ceil(count / 8)` bytes; bits past the end are 0. */
  readonly bytes: Uint8Array

  /** @throws invalid where `bytes` does not fit `count` */
  constructor(count: number, bytes: Uint8Array = new Uint8Array(Math.ceil(count / 8))) {
    const spare = bytes.length * 8 - count
    if (spare < 0 || spare > 7 || (spare > 0 && bytes.at(-1)! >>> (8 - spare) !== 0)) {
      throw new P2pfsError('invalid', `bitmap of ${count} bits has the wrong length, or bits past its end`)
    }
    this.count = count
    this.bytes = bytes
  }

  get(index: number): boolean {
    return index < this.count && (this.bytes[index >>> 3]! & (1 << (index & 7))) !== 0
  }

  set(index: number): void {
    this.bytes[index >>> 3]! |= 1 << (index & 7)
  }

  clear(index: number): void {
    this.bytes[index >>> 3]! &= ~(1 << (index & 7))
  }
}
