import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { constants, createZstdCompress, createZstdDecompress, zstdCompress, zstdDecompress } from 'node:zlib'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'

/**
 * Publications are written once, and read at every cold mount. Level 9: 50 MB/s, and a tenth smaller than the default.
 */
const level = { params: { [constants.ZSTD_c_compressionLevel]: 9 } }
const compressBytes = promisify(zstdCompress)
const decompressBytes = promisify(zstdDecompress)

export async function compress(bytes: Uint8Array): Promise<Buffer> {
  return await compressBytes(bytes, level)
}

/** @throws invalid for bytes that are not zstd, or become longer than `maxBytes` */
export async function decompress(bytes: Uint8Array, maxBytes: number, what: string): Promise<Buffer> {
  try {
    return await decompressBytes(bytes, { maxOutputLength: maxBytes })
  } catch (cause) {
    throw new P2pfsError('invalid', `${what} is not zstd, or longer than ${maxBytes} bytes`, { cause })
  }
}

/**
 * Compresses the chunks of a segment, in order, into one zstd stream.
 * @throws invalid if the stream becomes longer than `maxBytes`; what `chunks` throws
 */
export async function compressChunks(chunks: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let length = 0
  const input = Readable.from(chunks, { objectMode: false })
  const output = createZstdCompress(level)
  input.on('error', (error) => output.destroy(error))
  try {
    for await (const piece of input.pipe(output)) {
      pieces.push(piece as Buffer)
      length += (piece as Buffer).length
      if (length > maxBytes)
        throw new P2pfsError('invalid', `the segment is longer than ${maxBytes} bytes when compressed`)
    }
  } finally {
    input.destroy()
    output.destroy()
  }
  return Buffer.concat(pieces)
}

/**
 * Reads what {@link compressChunks} wrote. Each chunk is verified, and has a buffer of its own.
 * @throws invalid if the chunks are not exactly those of the table
 */
export async function* expandChunks(
  bytes: Uint8Array,
  table: ChunkTable,
  what: string,
): AsyncGenerator<{ digest: Digest; bytes: Uint8Array }> {
  const input = Readable.from([bytes], { objectMode: false })
  const output = createZstdDecompress()
  const fail = (cause?: unknown): never => {
    throw new P2pfsError('invalid', `${what} is not what its rootfs manifest says`, { cause })
  }
  let index = 0
  let chunk = Buffer.alloc(0)
  let filled = 0
  try {
    for await (const value of input.pipe(output)) {
      const piece = value as Buffer
      for (let offset = 0; offset < piece.length;) {
        if (index === table.count) fail()
        if (filled === 0) chunk = Buffer.allocUnsafeSlow(table.lengthAt(index))
        const length = Math.min(piece.length - offset, chunk.length - filled)
        piece.copy(chunk, filled, offset, offset + length)
        offset += length
        filled += length
        if (filled < chunk.length) continue
        const digest = table.digestAt(index)
        if (digestOf(chunk) !== digest) fail()
        yield { digest, bytes: chunk }
        index++
        filled = 0
      }
    }
  } catch (cause) {
    // Errors of zlib have a number; those of the consumer pass.
    if (typeof (cause as { errno?: unknown }).errno !== 'number') throw cause
    fail(cause)
  } finally {
    input.destroy()
    output.destroy()
  }
  if (index < table.count) fail()
}
