import { P2pfsError } from '../../../protocol/errors.ts'
import type { ByteString } from '../../../protocol/layer-entry.ts'

const pieceBits = 20
const pieceBytes = 1 << pieceBits
/** Places are numbers of 32 bits. */
const maxPieces = 2 ** 32 / pieceBytes
/** Before each string stands its length, bytes. */
const lengthBytes = 4

/** Byte strings, one behind the other in pieces that are never copied. The place of a string is a number of 32 bits. */
export class BytePool {
  readonly #pieces: Buffer[] = []
  #used = pieceBytes

  /** @returns the place. @throws unsupported for more than 4 GiB of strings */
  add(bytes: ByteString | Uint8Array): number {
    const size = lengthBytes + bytes.length
    if (this.#used + size > pieceBytes) {
      if (this.#pieces.length === maxPieces) throw new P2pfsError('unsupported', 'more than 4 GiB of names')
      this.#pieces.push(Buffer.allocUnsafeSlow(Math.max(size, pieceBytes)))
      this.#used = 0
    }
    const start = this.#used
    const piece = this.#pieces.at(-1)!
    piece.writeUInt32LE(bytes.length, start)
    if (typeof bytes === 'string') piece.write(bytes, start + lengthBytes, 'latin1')
    else piece.set(bytes, start + lengthBytes)
    this.#used += size
    return (this.#pieces.length - 1) * pieceBytes + start
  }

  lengthAt(place: number): number {
    return this.#pieces[place >>> pieceBits]!.readUInt32LE(place & (pieceBytes - 1))
  }

  /** A view of the bytes. */
  bytesAt(place: number): Buffer {
    const start = (place & (pieceBytes - 1)) + lengthBytes
    return this.#pieces[place >>> pieceBits]!.subarray(start, start + this.lengthAt(place))
  }

  stringAt(place: number): ByteString {
    const start = (place & (pieceBytes - 1)) + lengthBytes
    return this.#pieces[place >>> pieceBits]!.toString('latin1', start, start + this.lengthAt(place))
  }

  equals(place: number, text: ByteString): boolean {
    const piece = this.#pieces[place >>> pieceBits]!
    const start = place & (pieceBytes - 1)
    if (piece.readUInt32LE(start) !== text.length) return false
    for (let i = 0; i < text.length; i++) if (piece[start + lengthBytes + i] !== text.charCodeAt(i)) return false
    return true
  }

  /** Bytewise: negative where the first is less. */
  compare(first: number, second: number): number {
    const firstPiece = this.#pieces[first >>> pieceBits]!
    const secondPiece = this.#pieces[second >>> pieceBits]!
    const firstLength = this.lengthAt(first)
    const secondLength = this.lengthAt(second)
    const firstStart = (first & (pieceBytes - 1)) + lengthBytes
    const secondStart = (second & (pieceBytes - 1)) + lengthBytes
    for (let i = 0; i < Math.min(firstLength, secondLength); i++) {
      const difference = firstPiece[firstStart + i]! - secondPiece[secondStart + i]!
      if (difference !== 0) return difference
    }
    return firstLength - secondLength
  }
}
