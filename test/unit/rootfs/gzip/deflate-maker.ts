import type { createRandom } from '../../../support/random.ts'

/** RFC 1951, section 3.2.5: lengths 3 to 10 and 258 have a symbol of their own. */
const longest = 258

/** Writes deflate blocks of fixed codes by hand: no compressor makes matches at the greatest distance, for example. */
export class DeflateMaker {
  readonly output: number[] = []
  readonly #bits: number[] = []
  #open = false

  literal(byte: number): this {
    this.#begin()
    if (byte < 144) this.#code(0x30 + byte, 8)
    else this.#code(0x190 + byte - 144, 9)
    this.output.push(byte)
    return this
  }

  /** @param length 3 to 10, or 258; `distance` up to 32768 */
  match(length: number, distance: number): this {
    this.#begin()
    if (length === longest) this.#code(0xc0 + 285 - 280, 8)
    else this.#code(length - 2, 7)
    // Four codes have no extra bits; each further number of extra bits has two.
    let code = distance - 1
    let extra = 0
    if (distance > 4) {
      extra = Math.floor(Math.log2(distance - 1)) - 1
      code = 2 * extra + ((distance - 1) >> extra)
    }
    this.#code(code, 5)
    for (let i = 0; i < extra; i++) this.#bits.push(((distance - 1) >> i) & 1)
    for (let i = 0; i < length; i++) this.output.push(this.output[this.output.length - distance]!)
    return this
  }

  endBlock(): this {
    this.#begin()
    this.#code(0, 7)
    this.#open = false
    return this
  }

  /** The stream, with an empty block as its last. */
  finish(): Buffer {
    if (this.#open) this.endBlock()
    this.#bits.push(1, 1, 0)
    this.#code(0, 7)
    const bytes = Buffer.alloc(Math.ceil(this.#bits.length / 8))
    for (const [i, bit] of this.#bits.entries()) bytes[i >> 3]! |= bit << (i & 7)
    return bytes
  }

  #begin(): void {
    if (this.#open) return
    this.#bits.push(0, 1, 0)
    this.#open = true
  }

  /** Huffman codes stand highest bit first. */
  #code(code: number, count: number): void {
    for (let i = count - 1; i >= 0; i--) this.#bits.push((code >> i) & 1)
  }
}

/** A stream of blocks of any length with matches of all distances; many reach back over the start of their block. */
export function randomDeflate(random: ReturnType<typeof createRandom>, bytes: number): DeflateMaker {
  const maker = new DeflateMaker()
  for (let i = 0; i < 8; i++) maker.literal(random.below(256))
  while (maker.output.length < bytes) {
    const kind = random.below(100)
    const reach = Math.min(maker.output.length, 32_768)
    const near = random.below(3) === 0 ? 4 : reach
    if (kind < 40) maker.literal(random.below(256))
    else if (kind < 45) maker.match(longest, reach)
    else if (kind < 97)
      maker.match(random.below(4) === 0 ? longest : 3 + random.below(8), 1 + random.below(Math.min(near, reach)))
    else maker.endBlock()
  }
  return maker
}
