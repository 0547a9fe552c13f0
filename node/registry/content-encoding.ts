import { promisify } from 'node:util'
import { brotliDecompress, gunzip, inflate, zstdDecompress } from 'node:zlib'
import { P2pfsError } from '../../protocol/errors.ts'

/** Decoded answers: manifests and tokens (bytes). */
const maxDecodedBytes = 4 * 1024 * 1024

const decoders = new Map<string, (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>>([
  ['gzip', promisify(gunzip)],
  ['deflate', promisify(inflate)],
  ['br', promisify(brotliDecompress)],
  ['zstd', promisify(zstdDecompress)],
])

/** RFC 1952, section 2.3.1. */
const isGzip = (bytes: Uint8Array): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b

/**
 * Decodes the body of an answer that is text. Nobody asks for compression, but some servers and proxies compress all
 * the same, and some call compressed what is not.
 * @throws invalid for a damaged body, and for one that is too long, naming `host`
 */
export async function decodeContent(
  bytes: Buffer,
  headers: Readonly<Record<string, string | string[] | undefined>>,
  host: string,
  maxBytes = maxDecodedBytes,
): Promise<Buffer> {
  const named = [headers['content-encoding']].flat().join(',').trim().toLowerCase()
  const encoding = isGzip(bytes) ? 'gzip' : named === 'gzip' || named === 'x-gzip' ? 'identity' : named
  const decode = decoders.get(encoding)
  if (decode === undefined || bytes.length === 0) return bytes
  try {
    return await decode(bytes, { maxOutputLength: maxBytes })
  } catch (cause) {
    throw new P2pfsError('invalid', `${host} answers with ${encoding} that cannot be decoded`, { cause, host })
  }
}
