/** Bits in ext4's order: the lowest of the first byte is number 0. */
export class BitRuns {
  readonly bytes: Uint8Array

  constructor(bits: number) {
    this.bytes = new Uint8Array(Math.ceil(bits / 8))
  }

  /** Sets bits `from` to `to`, the last not included. */
  set(from: number, to: number): void {
    let at = from
    for (; at < to && at % 8 !== 0; at++) this.bytes[at >>> 3]! |= 1 << (at & 7)
    const whole = Math.max(at, to - (to % 8))
    this.bytes.fill(0xff, at / 8, whole / 8)
    for (at = whole; at < to; at++) this.bytes[at >>> 3]! |= 1 << (at & 7)
  }

  /** How many of bits `from` to `to` are set; both on byte boundaries, but `to` may be the end. */
  count(from: number, to: number): number {
    let count = 0
    for (let at = from; at < to; at += 8) {
      let byte = this.bytes[at >>> 3]!
      if (to - at < 8) byte &= (1 << (to - at)) - 1
      for (; byte !== 0; byte &= byte - 1) count++
    }
    return count
  }
}
