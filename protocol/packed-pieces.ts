/** A run of bytes of the tar that is also a run of bytes of the data segment. */
export interface Piece {
  segmentOffset: number
  lengthBytes: number
  tarOffset: number
}

const numbersPerPiece = 3

/** The pieces of a blob map. There may be millions, so each is an object only while somebody looks at it. */
export class PackedPieces implements Iterable<Piece> {
  readonly length: number
  readonly #numbers: Float64Array

  /** @param numbers of each piece the offset in the segment, the length and the offset in the tar (bytes) */
  constructor(numbers: Float64Array) {
    this.#numbers = numbers
    this.length = numbers.length / numbersPerPiece
  }

  static of(pieces: readonly Piece[]): PackedPieces {
    return new PackedPieces(
      Float64Array.from(pieces.flatMap((piece) => [piece.segmentOffset, piece.lengthBytes, piece.tarOffset])),
    )
  }

  /** @returns undefined outside the list */
  get(index: number): Piece | undefined {
    if (index < 0 || index >= this.length) return undefined
    const offset = index * numbersPerPiece
    const numbers = this.#numbers
    return { segmentOffset: numbers[offset]!, lengthBytes: numbers[offset + 1]!, tarOffset: numbers[offset + 2]! }
  }

  *[Symbol.iterator](): Generator<Piece> {
    for (let i = 0; i < this.length; i++) yield this.get(i)!
  }
}
