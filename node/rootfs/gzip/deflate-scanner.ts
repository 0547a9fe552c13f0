import { P2pfsError } from '../../../protocol/errors.ts'

/** RFC 1951: how far back a match can reach, bytes. */
export const maxWindowBytes = 32 * 1024

/** The mark of a needed byte; the others are 0. */
export const neededByte = 0xff

export interface DeflateObserver {
  /**
   * A block begins.
   * @param bitOffset its first bit, counted from the start of the stream
   * @param outputOffset bytes of output before it
   * @returns whether {@link needed} shall be called for this block. The scanner works on one such block at a time, for
   *   {@link maxWindowBytes} of output; meanwhile it ignores the answer.
   */
  block: (bitOffset: number, outputOffset: number) => boolean
  /**
   * Called for the last block whose `block` returned true.
   * @param bytes {@link maxWindowBytes} of them, one for each byte of output before the block, the nearest last:
   *   {@link neededByte} where a match behind the block's start refers to that byte, else 0. The observer owns them.
   */
  needed: (bytes: Uint8Array) => void
  /** A reader may stop here: the first `streamBytes` of the stream make at least `outputBytes` of output. */
  stopPoint: (streamBytes: number, outputBytes: number) => void
}

export interface DeflateScannerOptions {
  /** Offset of the first stop point in the stream, bytes. */
  firstStopBytes: number
  /** Distance of the stop points, bytes of the stream. */
  stopDistanceBytes: number
}

/*
 * A decoding table has one entry, a 32-bit number, for each value of the next bits of input:
 *   bits 0-4    bits that the code takes
 *   bits 5-8    extra bits that follow
 *   bits 9-11   kind
 *   bits 12-    output bytes of a literal, base of a length or distance, or start of the table that a link leads to
 */
const literalBits = 11
const distanceBits = 10
const codeLengthBits = 7
const literalMask = (1 << literalBits) - 1
const distanceMask = (1 << distanceBits) - 1
const kinds = { literal: 0, length: 1, end: 2, link: 3, invalid: 4 } as const

/** RFC 1951, section 3.2.5. */
const lengthBase = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
]
const lengthExtra = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0]
const distanceBase = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
  8193, 12_289, 16_385, 24_577,
]
const distanceExtra = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13]
/** Order in which the lengths of the code length code are stored: section 3.2.7. */
const codeLengthOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
/** The longest header of a dynamic block, bytes: 17 bits, 19 times 3 bits, 320 codes of at most 7 + 7 bits. */
const maxHeaderBytes = 580

function literalEntry(symbol: number): number {
  if (symbol < 256) return (kinds.literal << 9) | (1 << 12)
  if (symbol === 256) return kinds.end << 9
  const i = symbol - 257
  if (i >= lengthBase.length) return kinds.invalid << 9
  return (kinds.length << 9) | (lengthExtra[i]! << 5) | (lengthBase[i]! << 12)
}

function distanceEntry(symbol: number): number {
  return symbol < 30 ? (distanceExtra[symbol]! << 5) | (distanceBase[symbol]! << 12) : kinds.invalid << 9
}

const literalEntries = Int32Array.from({ length: 288 }, (_, i) => literalEntry(i))
const distanceEntries = Int32Array.from({ length: 32 }, (_, i) => distanceEntry(i))

const symbolEntries = Int32Array.from({ length: 19 }, (_, i) => i << 12)
const counts = new Uint16Array(16)
const nextCode = new Uint16Array(16)
const invalidEntry = (kinds.invalid << 9) | 1

/** Fills a table for the canonical code of these lengths. Codes longer than `bits` get tables behind it. */
function buildTable(
  table: Int32Array,
  bits: number,
  lengths: Uint8Array,
  from: number,
  to: number,
  entries: Int32Array,
): void {
  counts.fill(0)
  for (let i = from; i < to; i++) counts[lengths[i]!]!++
  counts[0] = 0
  let code = 0
  let left = 1
  let longest = 0
  for (let length = 1; length <= 15; length++) {
    left = (left << 1) - counts[length]!
    if (left < 0) throw new P2pfsError('invalid', 'deflate: more codes than there can be')
    code = (code + counts[length - 1]!) << 1
    nextCode[length] = code
    if (counts[length]! > 0) longest = length
  }
  const size = 1 << bits
  // A code may be incomplete where it has one symbol. Bits that stand for no symbol have an invalid entry.
  const secondBits = longest > bits ? longest - bits : 0
  if (left > 0 || secondBits > 0) table.fill(invalidEntry, 0, size)
  let next = size
  for (let i = from; i < to; i++) {
    const length = lengths[i]!
    if (length === 0) continue
    const reversed = reverse(nextCode[length]!++, length)
    const entry = entries[i - from]! | length
    if (length <= bits) {
      for (let index = reversed; index < size; index += 1 << length) table[index] = entry
      continue
    }
    const low = reversed & (size - 1)
    let link = table[low]!
    if (((link >> 9) & 7) !== kinds.link) {
      link = (kinds.link << 9) | (secondBits << 5) | (next << 12)
      table.fill(invalidEntry, next, next + (1 << secondBits))
      table[low] = link
      next += 1 << secondBits
    }
    const base = link >>> 12
    for (let index = reversed >>> bits; index < 1 << secondBits; index += 1 << (length - bits))
      table[base + index] = entry
  }
}

function reverse(code: number, length: number): number {
  let reversed = 0
  for (let i = 0; i < length; i++) reversed |= ((code >> i) & 1) << (length - 1 - i)
  return reversed
}

const fixedLengths = new Uint8Array(288 + 32)
fixedLengths.fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280, 288).fill(5, 288, 320)

type State = 'block' | 'stored' | 'codes' | 'end'

/**
 * Finds where the blocks of one deflate stream begin, in bits of input and bytes of output, without making the output.
 * The stream is pushed in pieces of any size. It holds a few tables and the unfinished end of the last piece.
 */
export class DeflateScanner {
  readonly #observer: DeflateObserver
  readonly #stopDistanceBytes: number
  readonly #literals = new Int32Array((1 << literalBits) + 288 * 16)
  readonly #distances = new Int32Array((1 << distanceBits) + 32 * 32)
  readonly #lengths = new Uint8Array(320 + 32)
  #buffer = new Uint8Array(0)
  #view = new DataView(this.#buffer.buffer)
  #rest: Uint8Array = new Uint8Array(0)
  /** Bits of the stream before the first byte of the rest. */
  #bitsBefore = 0
  /** Position in the rest, bits. */
  #bit = 0
  #output = 0
  #state: State = 'block'
  #last = false
  #storedLeft = 0
  #nextStopBytes: number
  /** The needs of a block while they are being found out. */
  #needed: Uint8Array | undefined
  /** Output before that block, bytes. */
  #neededOffset = 0

  constructor(observer: DeflateObserver, { firstStopBytes, stopDistanceBytes }: DeflateScannerOptions) {
    this.#observer = observer
    this.#nextStopBytes = firstStopBytes
    this.#stopDistanceBytes = stopDistanceBytes
  }

  /** Output that the stream has made so far, bytes. */
  get outputOffset(): number {
    return this.#output
  }

  /**
   * @param final whether this is the last piece
   * @returns the bytes behind the end of the stream; undefined while it has not ended
   * @throws invalid for bytes that are no deflate stream
   */
  push(input: Uint8Array, final = false): Uint8Array | undefined {
    const length = this.#rest.length + input.length
    // Zeros behind the data let every load read four bytes.
    if (this.#buffer.length < length + 8) this.#buffer = new Uint8Array(length + 8)
    const buffer = this.#buffer
    buffer.set(this.#rest)
    buffer.set(input, this.#rest.length)
    buffer.fill(0, length, length + 8)
    this.#view = new DataView(buffer.buffer)
    const data = buffer.subarray(0, length)
    this.#scan(data, final)
    if (this.#needed !== undefined && (this.#state === 'end' || this.#output - this.#neededOffset >= maxWindowBytes))
      this.#endNeeded()
    if (this.#state === 'end') return data.slice((this.#bit + 7) >>> 3)
    if (final) throw new P2pfsError('invalid', 'deflate: cut short')
    const used = this.#bit >>> 3
    this.#bitsBefore += used * 8
    this.#bit -= used * 8
    this.#rest = data.slice(used)
    return undefined
  }

  #scan(data: Uint8Array, final: boolean): void {
    while (this.#state !== 'end') {
      if (this.#state === 'block') {
        const bytesLeft = data.length - (this.#bit >>> 3)
        if (bytesLeft < 1 || (!final && bytesLeft < maxHeaderBytes && !this.#fits(data))) return
        this.#beginBlock(data)
      } else if (this.#state === 'stored') {
        const length = Math.min(this.#storedLeft, data.length - (this.#bit >>> 3))
        for (let stopBit = this.#stopBit(); stopBit <= this.#bit + length * 8; stopBit = this.#stopBit())
          this.#passStopPoint(this.#output + Math.max(0, (stopBit - this.#bit) / 8))
        this.#storedLeft -= length
        this.#output += length
        this.#bit += length * 8
        if (this.#storedLeft > 0) return
        this.#state = this.#last ? 'end' : 'block'
      } else if (!this.#codes(data)) return
    }
  }

  /** Whether the block's header is whole although little input is there. */
  #fits(data: Uint8Array): boolean {
    const available = data.length * 8 - this.#bit
    if (available < 3) return false
    const type = (this.#peek(this.#bit) >>> 1) & 3
    if (type === 1) return true
    if (type === 0) return available >= ((8 - ((this.#bit + 3) & 7)) & 7) + 3 + 32
    return false
  }

  #peek(bit: number): number {
    return this.#view.getUint32(bit >>> 3, true) >>> (bit & 7)
  }

  #take(data: Uint8Array, count: number): number {
    if (this.#bit + count > data.length * 8) throw new P2pfsError('invalid', 'deflate: cut short')
    const value = this.#peek(this.#bit) & ((1 << count) - 1)
    this.#bit += count
    return value
  }

  /** The next stop point as a position in the rest and the input, bits. */
  #stopBit(): number {
    return this.#nextStopBytes * 8 - this.#bitsBefore
  }

  #passStopPoint(outputBytes: number): void {
    this.#observer.stopPoint(this.#nextStopBytes, outputBytes)
    this.#nextStopBytes += this.#stopDistanceBytes
  }

  /**
   * Marks what a match needs.
   * @param outputOffset output between the block whose needs are being found out and the match
   * @param bit where the extra bits of the match's distance begin
   */
  #need(outputOffset: number, length: number, distanceEntry: number, bit: number): void {
    const distance = (distanceEntry >>> 12) + (this.#peek(bit) & ((1 << ((distanceEntry >> 5) & 15)) - 1))
    const from = maxWindowBytes + outputOffset - distance
    if (from < maxWindowBytes) this.#needed!.fill(neededByte, Math.max(0, from), from + length)
  }

  #endNeeded(): void {
    this.#observer.needed(this.#needed!)
    this.#needed = undefined
  }

  #beginBlock(data: Uint8Array): void {
    if (this.#needed !== undefined && this.#output - this.#neededOffset >= maxWindowBytes) this.#endNeeded()
    if (this.#observer.block(this.#bitsBefore + this.#bit, this.#output) && this.#needed === undefined) {
      this.#needed = new Uint8Array(maxWindowBytes)
      this.#neededOffset = this.#output
    }
    this.#last = this.#take(data, 1) === 1
    const type = this.#take(data, 2)
    if (type === 3) throw new P2pfsError('invalid', 'deflate: block of no known type')
    if (type === 0) {
      this.#bit = (this.#bit + 7) & ~7
      const length = this.#take(data, 16)
      if (this.#take(data, 16) !== (~length & 0xffff))
        throw new P2pfsError('invalid', 'deflate: length of a stored block is damaged')
      this.#storedLeft = length
      this.#state = 'stored'
      return
    }
    this.#state = 'codes'
    if (type === 1) {
      buildTable(this.#literals, literalBits, fixedLengths, 0, 288, literalEntries)
      buildTable(this.#distances, distanceBits, fixedLengths, 288, 320, distanceEntries)
    } else this.#readCodes(data)
  }

  #readCodes(data: Uint8Array): void {
    const lengths = this.#lengths
    const literals = this.#take(data, 5) + 257
    const distances = this.#take(data, 5) + 1
    const codes = this.#take(data, 4) + 4
    lengths.fill(0)
    for (let i = 0; i < codes; i++) lengths[codeLengthOrder[i]!] = this.#take(data, 3)
    buildTable(this.#distances, codeLengthBits, lengths, 0, 19, symbolEntries)
    const total = literals + distances
    const table = this.#distances
    const read = new Uint8Array(total)
    for (let i = 0; i < total;) {
      const entry = table[this.#peek(this.#bit) & ((1 << codeLengthBits) - 1)]!
      if (((entry >> 9) & 7) === kinds.invalid) throw new P2pfsError('invalid', 'deflate: no such code')
      this.#take(data, entry & 31)
      const symbol = entry >>> 12
      if (symbol < 16) {
        read[i++] = symbol
        continue
      }
      const repeat =
        symbol === 16 ? 3 + this.#take(data, 2) : symbol === 17 ? 3 + this.#take(data, 3) : 11 + this.#take(data, 7)
      if (i + repeat > total || (symbol === 16 && i === 0))
        throw new P2pfsError('invalid', 'deflate: code lengths are damaged')
      read.fill(symbol === 16 ? read[i - 1]! : 0, i, i + repeat)
      i += repeat
    }
    buildTable(this.#literals, literalBits, read, 0, literals, literalEntries)
    buildTable(this.#distances, distanceBits, read, literals, total, distanceEntries)
  }

  /** Follows the codes of a block. @returns whether the block has ended; else more input is needed */
  #codes(data: Uint8Array): boolean {
    const view = this.#view
    const literals = this.#literals
    const distances = this.#distances
    const end = data.length * 8
    // A length and a distance with all their extra bits end before `end` where they begin before this.
    const safeEnd = end - 64
    let stopBit = this.#stopBit()
    let fastEnd = Math.min(safeEnd, stopBit - 64)
    // Matches below this much output of this call may need something of the window.
    const neededEnd = this.#needed === undefined ? 0 : this.#neededOffset + maxWindowBytes - this.#output
    let bit = this.#bit
    let produced = 0
    let ended = false
    for (;;) {
      const start = bit
      let value = view.getUint32(bit >>> 3, true) >>> (bit & 7)
      let entry = literals[value & literalMask]!
      let kind = (entry >> 9) & 7
      if (kind === kinds.literal && bit < fastEnd) {
        // Literals often come in a row. The 25 bits that are loaded are enough for two.
        bit += entry & 31
        produced++
        entry = literals[(value >>> (entry & 31)) & literalMask]!
        if (((entry >> 9) & 7) === kinds.literal) {
          bit += entry & 31
          produced++
        }
        continue
      }
      if (kind === kinds.link) {
        entry = literals[(entry >>> 12) + ((value >>> literalBits) & ((1 << ((entry >> 5) & 15)) - 1))]!
        kind = (entry >> 9) & 7
      }
      const length = entry & 31
      bit += length
      let more = 1
      let valid = kind !== kinds.invalid
      let distance = 0
      if (kind === kinds.length) {
        const extra = (entry >> 5) & 15
        more = (entry >>> 12) + ((value >>> length) & ((1 << extra) - 1))
        bit += extra
        value = view.getUint32(bit >>> 3, true) >>> (bit & 7)
        distance = distances[value & distanceMask]!
        if (((distance >> 9) & 7) === kinds.link)
          distance = distances[(distance >>> 12) + ((value >>> distanceBits) & ((1 << ((distance >> 5) & 15)) - 1))]!
        valid = ((distance >> 9) & 7) === 0
        bit += (distance & 31) + ((distance >> 5) & 15)
      }
      if (bit > fastEnd) {
        if (bit > end || (!valid && start > safeEnd)) {
          bit = start
          break
        }
        for (; bit > stopBit; stopBit = this.#stopBit()) this.#passStopPoint(this.#output + produced)
        fastEnd = Math.min(safeEnd, stopBit - 64)
      }
      if (!valid) throw new P2pfsError('invalid', 'deflate: no such code')
      if (kind === kinds.end) {
        ended = true
        break
      }
      if (produced < neededEnd && kind === kinds.length)
        this.#need(this.#output + produced - this.#neededOffset, more, distance, bit - ((distance >> 5) & 15))
      produced += more
    }
    this.#bit = bit
    this.#output += produced
    if (ended) this.#state = this.#last ? 'end' : 'block'
    return ended
  }
}
