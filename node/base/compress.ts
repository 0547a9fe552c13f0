import { Readable } from 'node:stream'
import { createZstdCompress } from 'node:zlib'

/** Compresses bytes that come in pieces into one zstd frame, without ever holding all of them. */
export async function compressPieces(pieces: Iterable<Uint8Array>): Promise<Buffer> {
  const compressed: Buffer[] = []
  for await (const bytes of Readable.from(pieces, { objectMode: false }).pipe(createZstdCompress()))
    compressed.push(bytes as Buffer)
  return Buffer.concat(compressed)
}
