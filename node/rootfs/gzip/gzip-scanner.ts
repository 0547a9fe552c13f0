import { P2pfsError } from '../../../protocol/errors.ts'
import { DeflateScanner, maxWindowBytes } from './deflate-scanner.ts'

/** A place in a gzip stream at which decoding can begin. */
export interface BlockStart {
  /** From the start of the stream, bits. */
  bitOffset: number
  /** Output before it, bytes. */
  outputOffset: number
  /** How much of that output the block can refer to: at most 32 KiB, nothing at the start of a member. */
  windowBytes: number
}

export interface GzipObserver {
  /** @returns whether `needed` is to be told of it; ignored at less than {@link maxWindowBytes} of output behind another */
  block: (start: BlockStart) => boolean
  /** For the block of which this was asked last: which bytes before it a decoder needs that begins there, the nearest last; the receiver's. */
  needed: (bytes: Uint8Array) => void
  /** The first so many bytes of the stream make at least so much output: at multiples of `markDistanceBytes`, not at all of them. */
  mark: (streamBytes: number, outputBytes: number) => void
}
/** A header with a name and a comment; longer ones are an attack, bytes. */
const maxHeaderBytes = 64 * 1024
/** RFC 1952: check and length behind each member. */
const trailerBytes = 8

/** Finds the blocks of a gzip stream of any number of members, pushed in pieces of any size. */
export class GzipScanner {
  readonly #observer: GzipObserver
  readonly #markDistance: number
  #state: 'header' | 'deflate' | 'trailer' | 'end' = 'header'
  #pending: Buffer = Buffer.alloc(0)
  /** Bytes of the stream before the member's first block; output before the member. */
  #deflateStart = 0
  #memberOutput = 0
  #position = 0
  #members = 0
  #trailerLeft = 0
  #deflate: DeflateScanner | undefined

  constructor(observer: GzipObserver, { markDistanceBytes }: { markDistanceBytes: number }) {
    this.#observer = observer
    this.#markDistance = markDistanceBytes
  }

  /** @throws invalid for what is no gzip stream */
  push(input: Buffer): void {
    this.#advance(input, false)
  }

  /** No more input. @throws invalid where the stream is cut short */
  finish(): void {
    this.#advance(Buffer.alloc(0), true)
    const whole = this.#state === 'end' || (this.#state === 'header' && this.#pending.length === 0 && this.#members > 0)
    if (!whole) throw new P2pfsError('invalid', 'gzip: cut short')
  }

  #advance(input: Buffer, final: boolean): void {
    let data = input
    if (final && this.#state === 'deflate') data = this.#scan(data, true)
    while (data.length > 0 && this.#state !== 'end') {
      if (this.#state === 'header') data = this.#header(data)
      else if (this.#state === 'deflate') data = this.#scan(data, final)
      else {
        const length = Math.min(this.#trailerLeft, data.length)
        this.#trailerLeft -= length
        this.#position += length
        data = data.subarray(length)
        if (this.#trailerLeft === 0) this.#state = 'header'
      }
    }
  }

  #header(input: Buffer): Buffer {
    this.#pending = this.#pending.length === 0 ? input : Buffer.concat([this.#pending, input])
    const data = this.#pending
    // Behind the last member some writers pad with zeros; decompressors leave that alone.
    if (this.#members > 0 && (data[0] !== 0x1f || (data.length > 1 && data[1] !== 0x8b))) {
      this.#state = 'end'
      return data.subarray(data.length)
    }
    const length = headerLength(data)
    if (length === undefined) {
      if (data.length > maxHeaderBytes) throw new P2pfsError('invalid', 'gzip: header is too long')
      return data.subarray(data.length)
    }
    this.#pending = Buffer.alloc(0)
    this.#position += length
    this.#deflateStart = this.#position
    this.#members++
    this.#state = 'deflate'
    const memberOutput = this.#memberOutput
    const start = this.#deflateStart
    const { block, needed, mark } = this.#observer
    this.#deflate = new DeflateScanner(
      {
        block: (bitOffset, outputOffset) =>
          block({
            bitOffset: start * 8 + bitOffset,
            outputOffset: memberOutput + outputOffset,
            windowBytes: Math.min(outputOffset, maxWindowBytes),
          }),
        needed,
        mark: (streamBytes, outputBytes) => mark(start + streamBytes, memberOutput + outputBytes),
      },
      { firstMark: this.#markDistance - (start % this.#markDistance), markDistance: this.#markDistance },
    )
    return data.subarray(length)
  }

  #scan(data: Buffer, final: boolean): Buffer {
    const deflate = this.#deflate!
    const beyond = deflate.push(data, final)
    this.#position += data.length
    if (beyond === undefined) return data.subarray(data.length)
    this.#position -= beyond.length
    this.#memberOutput += deflate.outputOffset
    this.#trailerLeft = trailerBytes
    this.#state = 'trailer'
    return Buffer.from(beyond.buffer, beyond.byteOffset, beyond.length)
  }
}

/** RFC 1952, section 2.3. @returns undefined where the header is not whole */
function headerLength(data: Buffer): number | undefined {
  if (data.length < 10) return undefined
  if (data[0] !== 0x1f || data[1] !== 0x8b || data[2] !== 8)
    throw new P2pfsError('invalid', 'gzip: no member where one should begin')
  const flags = data[3]!
  let at = 10
  if ((flags & 4) !== 0) {
    if (data.length < at + 2) return undefined
    at += 2 + data.readUInt16LE(at)
  }
  for (const flag of [8, 16]) {
    if ((flags & flag) === 0) continue
    const zero = data.indexOf(0, at)
    if (zero < 0) return undefined
    at = zero + 1
  }
  if ((flags & 2) !== 0) at += 2
  return at <= data.length ? at : undefined
}
