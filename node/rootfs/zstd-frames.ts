import { P2pfsError } from '../../protocol/errors.ts'

/** A piece of one frame, in order. */
export interface FramePiece {
  bytes: Buffer
  /** Whether the frame ends with this piece. */
  last: boolean
  /** Offset of the frame in the stream, bytes: of its first piece only. */
  frameOffset?: number
}

const frameMagic = 0xfd2fb528
const skippableMagic = 0x184d2a50
/** Bytes of the dictionary id and of the content size by their flags: RFC 8878, section 3.1.1.1. */
const dictionaryBytes = [0, 1, 2, 4]
const contentSizeBytes = [0, 2, 4, 8]

/**
 * Cuts a zstd stream at its frames, for a decompressor that ends with its first frame: RFC 8878, section 3.1. Skippable
 * frames are left out.
 * @throws invalid for bytes that are no zstd stream, or one cut short
 */
export async function* zstdFrames(input: AsyncIterable<Buffer>): AsyncGenerator<FramePiece> {
  const iterator = input[Symbol.asyncIterator]()
  let buffer: Buffer = Buffer.alloc(0)
  /** Fills the buffer with at least `length` bytes. @returns false at the end of the stream */
  const fill = async (length: number): Promise<boolean> => {
    while (buffer.length < length) {
      const { done, value } = await iterator.next()
      if (done === true) return false
      buffer = buffer.length === 0 ? value : Buffer.concat([buffer, value])
    }
    return true
  }
  const need = async (length: number): Promise<void> => {
    if (!(await fill(length))) throw new P2pfsError('invalid', 'layer is damaged or cut short: zstd frame is not whole')
  }
  let position = 0
  const take = (length: number): Buffer => {
    position += length
    const taken = buffer.subarray(0, length)
    buffer = buffer.subarray(length)
    return taken
  }
  /** Passes on `length` bytes without gathering them. */
  const pass = async function* (length: number): AsyncGenerator<Buffer> {
    for (let left = length; left > 0;) {
      await need(1)
      const piece = take(Math.min(left, buffer.length))
      left -= piece.length
      yield piece
    }
  }
  while (await fill(1)) {
    await need(5)
    const magic = buffer.readUInt32LE(0)
    if ((magic & 0xfffffff0) >>> 0 === skippableMagic) {
      await need(8)
      const length = take(8).readUInt32LE(4)
      for await (const skipped of pass(length)) void skipped
      continue
    }
    if (magic !== frameMagic)
      throw new P2pfsError('invalid', 'layer is damaged or cut short: no zstd frame where one should begin')
    const descriptor = buffer[4]!
    const single = (descriptor & 0x20) !== 0
    const sizeFlag = descriptor >>> 6
    const headerBytes =
      5 +
      (single ? 0 : 1) +
      dictionaryBytes[descriptor & 3]! +
      (sizeFlag === 0 && single ? 1 : contentSizeBytes[sizeFlag]!)
    await need(headerBytes)
    yield { frameOffset: position, bytes: take(headerBytes), last: false }
    for (let lastBlock = false; !lastBlock;) {
      await need(3)
      const header = take(3)
      const value = header.readUIntLE(0, 3)
      lastBlock = (value & 1) !== 0
      // A block of type 1 repeats its one byte.
      const length = ((value >>> 1) & 3) === 1 ? 1 : value >>> 3
      yield { bytes: header, last: false }
      for await (const bytes of pass(length)) yield { bytes, last: false }
    }
    const checksum = (descriptor & 4) === 0 ? Buffer.alloc(0) : (await need(4), take(4))
    yield { bytes: checksum, last: true }
  }
}
