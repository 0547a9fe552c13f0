import { Readable, type Transform } from 'node:stream'
import { constants, createGunzip, createInflateRaw } from 'node:zlib'
import { P2pfsError } from '../../../protocol/errors.ts'

/** Size of the pieces of output, bytes. */
const outputBytes = 256 * 1024
/** RFC 1952: the checksum and length that end each member, bytes. */
const trailerBytes = 8

/**
 * Decodes gzip from a block in its middle on. A block may begin at any bit, but zlib begins at a byte. So many empty
 * blocks are put before the block that they end at the same bit of a byte (RFC 1951).
 *
 * @param bytes of the stream, from the byte in which the block begins; they may end anywhere
 * @param start `bit`: where in the first byte the block begins, 0 to 7; `window`: up to 32 KiB of output before it
 * @returns the output that the bytes make
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
  // The member may end within the bytes. Members behind it are decoded as a stream of their own.
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
 * Empty blocks whose bits are `bit` in number, modulo 8. An empty block of fixed codes has 10 bits. An odd number needs
 * one block of dynamic codes before them: with all 19 code lengths it has 95 bits.
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
    // 138 and 118 zeros, then length 1 for the end of the block and 0 for the distance. Codes stand highest bit first.
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
  for (const [i, value] of bits.entries()) bytes[i >> 3]! |= value << (i & 7)
  return bytes
}
