import type { IncomingMessage } from 'node:http'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { HttpError } from './problem.ts'

/** A request is a few names and paths (bytes). */
export const maxRequestBytes = 64 * 1024
/** A body that is too long is read up to this length, so that its sender comes to read the answer (bytes). */
const maxReadBytes = 1024 * 1024

/**
 * Reads the body of a request.
 * @throws HttpError: invalid (413) for one that is too long, or for text that is not UTF-8; closed if it does not come
 *   whole
 */
export async function readBody(request: IncomingMessage): Promise<string> {
  const bytes = await readBytes(request).catch((error: unknown) => {
    throw isP2pfsError(error)
      ? error
      : new P2pfsError('closed', 'the request broke off before its end', { cause: error })
  })
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new HttpError('invalid', 'the request is not text in UTF-8')
  }
}

async function readBytes(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = []
  let sizeBytes = 0
  for await (const piece of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    sizeBytes += piece.length
    if (sizeBytes <= maxRequestBytes) pieces.push(piece)
    else if (sizeBytes > maxReadBytes) break
  }
  if (sizeBytes > maxRequestBytes)
    throw new HttpError('invalid', `the request is longer than ${maxRequestBytes} bytes`, 413, { connection: 'close' })
  return Buffer.concat(pieces)
}
