/** Bits in ext4's order: number 0 is the lowest of the first byte. */
export class BitRuns {
  readonly bytes: Uint8Array

  constructor(bits: number) {
    this.bytes = new Uint8Array(Math.ceil(bits / 8))
  }

  /** Sets the bits from `from` to before `to`. */
  set(from: number, to: number): void {
    let bit = from
    for (; bit < to && bit % 8 !== 0; bit++) this.bytes[bit >>> 3]! |= 1 << (bit & 7)
    const whole = Math.max(bit, to - (to % 8))
    this.bytes.fill(0xff, bit / 8, whole / 8)
    for (bit = whole; bit < to; bit++) this.bytes[bit >>> 3]! |= 1 << (bit & 7)
  }

  /** Counts the set bits from `from` to before `to`. Both are on byte boundaries, but `to` may be the end. */
  count(from: number, to: number): number {
    let count = 0
    for (let bit = from; bit < to; bit += 8) {
      let byte = this.bytes[bit >>> 3]!
      if (to - bit < 8) byte &= (1 << (to - bit)) - 1
      for (; byte !== 0; byte &= byte - 1) count++
    }
    return count
  }
}
