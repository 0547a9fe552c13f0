import { P2pfsError } from '../../../protocol/errors.ts'
import { DeflateScanner, maxWindowBytes } from './deflate-scanner.ts'

/** A place in a gzip stream at which decoding can begin. */
export interface BlockStart {
  /** From the start of the stream, bits. */
  bitOffset: number
  /** Output before it, bytes. */
  outputOffset: number
  /** How much of that output the block can refer to: at most 32 KiB, and nothing at the start of a member. Bytes. */
  windowBytes: number
}

export interface GzipObserver {
  /** A block begins. @returns as `DeflateObserver.block` */
  block: (start: BlockStart) => boolean
  /** As `DeflateObserver.needed`. */
  needed: (bytes: Uint8Array) => void
  /**
   * The first `streamBytes` of the stream make at least `outputBytes` of output. Called at multiples of
   * `stopDistanceBytes`, except those within headers and trailers of members.
   */
  stopPoint: (streamBytes: number, outputBytes: number) => void
}
/** A header with a name and a comment is shorter; a longer one is an attack, bytes. */
const maxHeaderBytes = 64 * 1024
/** RFC 1952: the checksum and length that end each member, bytes. */
const trailerBytes = 8

/** Finds the blocks of a gzip stream of any number of members. The stream is pushed in pieces of any size. */
export class GzipScanner {
  readonly #observer: GzipObserver
  readonly #stopDistanceBytes: number
  #state: 'header' | 'deflate' | 'trailer' | 'end' = 'header'
  #pending: Buffer = Buffer.alloc(0)
  /** Bytes of the stream before the member's first block. */
  #deflateStart = 0
  /** Output before the member, bytes. */
  #memberOutput = 0
  #position = 0
  #members = 0
  #trailerLeft = 0
  #deflate: DeflateScanner | undefined

  constructor(observer: GzipObserver, { stopDistanceBytes }: { stopDistanceBytes: number }) {
    this.#observer = observer
    this.#stopDistanceBytes = stopDistanceBytes
  }

  /** @throws invalid for bytes that are no gzip stream */
  push(input: Buffer): void {
    this.#advance(input, false)
  }

  /** Ends the input. @throws invalid where the stream is cut short */
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
    // Some writers pad the last member with zeros. Decompressors ignore them.
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
    const { block, needed, stopPoint } = this.#observer
    this.#deflate = new DeflateScanner(
      {
        block: (bitOffset, outputOffset) =>
          block({
            bitOffset: start * 8 + bitOffset,
            outputOffset: memberOutput + outputOffset,
            windowBytes: Math.min(outputOffset, maxWindowBytes),
          }),
        needed,
        stopPoint: (streamBytes, outputBytes) => stopPoint(start + streamBytes, memberOutput + outputBytes),
      },
      {
        firstStopBytes: this.#stopDistanceBytes - (start % this.#stopDistanceBytes),
        stopDistanceBytes: this.#stopDistanceBytes,
      },
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

/** Length of a member's header: RFC 1952, section 2.3. @returns undefined where the header is not whole */
function headerLength(data: Buffer): number | undefined {
  if (data.length < 10) return undefined
  if (data[0] !== 0x1f || data[1] !== 0x8b || data[2] !== 8)
    throw new P2pfsError('invalid', 'gzip: no member where one should begin')
  const flags = data[3]!
  let offset = 10
  if ((flags & 4) !== 0) {
    if (data.length < offset + 2) return undefined
    offset += 2 + data.readUInt16LE(offset)
  }
  for (const flag of [8, 16]) {
    if ((flags & flag) === 0) continue
    const zero = data.indexOf(0, offset)
    if (zero < 0) return undefined
    offset = zero + 1
  }
  if ((flags & 2) !== 0) offset += 2
  return offset <= data.length ? offset : undefined
}
