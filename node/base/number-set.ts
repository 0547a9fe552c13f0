/** A set of small whole numbers, a bit for each up to the largest. */
export class NumberSet {
  #words = new Uint32Array(0)
  #size = 0

  get size(): number {
    return this.#size
  }

  has(number: number): boolean {
    return ((this.#words[number >>> 5] ?? 0) & (1 << (number & 31))) !== 0
  }

  add(number: number): void {
    if (this.has(number)) return
    const word = number >>> 5
    if (word >= this.#words.length) {
      const words = new Uint32Array(Math.max(word + 1, 2 * this.#words.length))
      words.set(this.#words)
      this.#words = words
    }
    this.#words[word]! |= 1 << (number & 31)
    this.#size++
  }

  delete(number: number): void {
    if (!this.has(number)) return
    this.#words[number >>> 5]! &= ~(1 << (number & 31))
    this.#size--
  }

  /** The first number that is at least `from`; undefined where there is none. */
  next(from: number): number | undefined {
    let word = from >>> 5
    let bits = (this.#words[word] ?? 0) & (-1 << (from & 31))
    while (bits === 0) {
      if (++word >= this.#words.length) return undefined
      bits = this.#words[word]!
    }
    return word * 32 + (31 - Math.clz32(bits & -bits))
  }
}
