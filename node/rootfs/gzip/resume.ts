import { Readable, type Transform } from 'node:stream'
import { constants, createGunzip, createInflateRaw } from 'node:zlib'
import { P2pfsError } from '../../../protocol/errors.ts'

/** Pieces of output, bytes. */
const outputBytes = 256 * 1024
/** RFC 1952: check and length behind each member. */
const trailerBytes = 8

/**
 * Decodes gzip from a block in its middle on. zlib begins at a byte, a block at any bit: so empty blocks stand before it that
 * end at the same bit of a byte (RFC 1951).
 *
 * @param bytes of the stream, from the byte that the block begins in; they may end anywhere
 * @param start the bit of the first byte at which the block begins, 0 to 7; the output before it, up to 32 KiB
 * @returns the output as far as the bytes go
 * @throws invalid where the stream is damaged
 */
export async function* resumeGzip(
  bytes: Buffer,
  { bit, window }: { bit: number; window: Uint8Array },
): AsyncGenerator<Buffer> {
  const prefix = emptyBlocks(bit)
  const joined = prefix.at(-1)! | (bytes[0]! & (0xff << bit))
  const input = bit === 0 ? [bytes] : [prefix.subarray(0, -1), Buffer.of(joined), bytes.subarray(1)]
  const added = bit === 0 ? 0 : prefix.length - 1
  const inflate = createInflateRaw({
    chunkSize: outputBytes,
    finishFlush: constants.Z_SYNC_FLUSH,
    ...(window.length === 0 ? {} : { dictionary: window }),
  })
  yield* outputOf(input, inflate)
  // The member may end within the bytes; others follow it, decoded as a stream of their own.
  const rest = bytes.subarray(inflate.bytesWritten - added + trailerBytes)
  if (rest.length < 2 || rest[0] !== 0x1f) return
  yield* outputOf([rest], createGunzip({ chunkSize: outputBytes, finishFlush: constants.Z_SYNC_FLUSH }))
}

async function* outputOf(input: Buffer[], transform: Transform): AsyncGenerator<Buffer> {
  try {
    for await (const piece of Readable.from(input, { objectMode: false }).pipe(transform)) yield piece as Buffer
  } catch (cause) {
    if (typeof (cause as { errno?: unknown }).errno !== 'number') throw cause
    throw new P2pfsError('invalid', `gzip stream is damaged: ${(cause as Error).message}`, { cause })
  } finally {
    transform.destroy()
  }
}

/**
 * Empty blocks of as many bits, modulo 8. An empty block of fixed codes has 10 bits; for an odd number one of dynamic codes
 * stands first: 95 bits with all 19 code lengths given.
 */
function emptyBlocks(bit: number): Buffer {
  const bits: number[] = []
  const put = (value: number, count: number): void => {
    for (let i = 0; i < count; i++) bits.push((value >> i) & 1)
  }
  if (bit % 2 === 1) {
    put(0b100, 3)
    // 257 literal codes, 1 distance code, 19 code lengths.
    put(0, 5)
    put(0, 5)
    put(15, 4)
    // Symbol 18 has the code 0, symbols 0 and 1 have 10 and 11; their places are 2, 3 and 17 of the 19.
    for (let i = 0; i < 19; i++) put(i === 2 ? 1 : i === 3 || i === 17 ? 2 : 0, 3)
    // 138 and 118 zeros, then a length of 1 for the end of the block and of 0 for the distance. Huffman codes stand highest bit first.
    put(0, 1)
    put(138 - 11, 7)
    put(0, 1)
    put(118 - 11, 7)
    put(0b11, 2)
    put(0b01, 2)
    // The end of the block.
    put(0, 1)
  }
  while (bits.length % 8 !== bit) {
    put(0b010, 3)
    put(0, 7)
  }
  const bytes = Buffer.alloc(Math.ceil(bits.length / 8) + (bits.length === 0 ? 1 : 0))
  for (const [i, one] of bits.entries()) bytes[i >> 3]! |= one << (i & 7)
  return bytes
}
