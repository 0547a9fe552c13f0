type NumberArray = Uint16Array | Uint32Array | Float64Array
type NumberArrayConstructor = new (length: number) => NumberArray

/** Rows of a piece are a power of two. */
const pieceBits = 15
const pieceRows = 1 << pieceBits

/**
 * A list of numbers that takes no more memory than their type needs. It grows in pieces, which are never copied; pieces
 * of zeros take none.
 */
export class Column {
  readonly #type: NumberArrayConstructor
  readonly #pieces: (NumberArray | undefined)[] = []
  #length = 0

  constructor(type: NumberArrayConstructor) {
    this.#type = type
  }

  get length(): number {
    return this.#length
  }

  /** @param index of a row that exists */
  get(index: number): number {
    const piece = this.#pieces[index >>> pieceBits]
    return piece === undefined ? 0 : piece[index & (pieceRows - 1)]!
  }

  set(index: number, value: number): void {
    let piece = this.#pieces[index >>> pieceBits]
    if (piece === undefined) {
      if (value === 0) return
      piece = new this.#type(pieceRows)
      this.#pieces[index >>> pieceBits] = piece
    }
    piece[index & (pieceRows - 1)] = value
  }

  /** @returns the index of the new row */
  push(value: number): number {
    const index = this.#length++
    if ((index & (pieceRows - 1)) === 0) this.#pieces.push(undefined)
    this.set(index, value)
    return index
  }
}

/** A list of safe integers that are mostly below 2^32, and then take 4 bytes. */
export class WideColumn {
  readonly #low = new Column(Uint32Array)
  readonly #high = new Column(Float64Array)

  get(index: number): number {
    return this.#high.get(index) * 2 ** 32 + this.#low.get(index)
  }

  set(index: number, value: number): void {
    const high = Math.floor(value / 2 ** 32)
    this.#high.set(index, high)
    this.#low.set(index, value - high * 2 ** 32)
  }

  push(value: number): number {
    const index = this.#low.push(0)
    this.#high.push(0)
    this.set(index, value)
    return index
  }
}
