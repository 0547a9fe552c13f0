import { once } from 'node:events'
import { createZstdCompress, createZstdDecompress } from 'node:zlib'
import { release } from './release.ts'

/** Size of the pieces that come of zlib, bytes: above that of Node's buffer pool. */
const pieceBytes = 64 * 1024

/**
 * Compresses bytes that come in pieces into one zstd frame, without holding all of them.
 * @param pieces each may be reused when the next is asked for
 */
export async function compressPieces(pieces: Iterable<Uint8Array>): Promise<Buffer> {
  const compressed: Buffer[] = []
  const stream = createZstdCompress({ chunkSize: pieceBytes }).on('data', (bytes: Buffer) => compressed.push(bytes))
  const ended = once(stream, 'end')
  ended.catch(() => undefined)
  for (const bytes of pieces) {
    await new Promise<void>((resolve, reject) =>
      stream.write(bytes, (error) => (error === null || error === undefined ? resolve() : reject(error))),
    )
  }
  stream.end()
  await ended
  const whole = Buffer.concat(compressed)
  for (const buffer of new Set(compressed.map(({ buffer }) => buffer))) release(new Uint8Array(buffer))
  return whole
}

/** Decompresses a zstd frame into pieces. @throws zlib's error for bytes that are no zstd */
export async function* expandPieces(compressed: Uint8Array): AsyncGenerator<Buffer> {
  const stream = createZstdDecompress({ chunkSize: pieceBytes })
  stream.end(compressed)
  for await (const piece of stream) yield piece as Buffer
}
