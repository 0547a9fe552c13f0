import type { IncomingMessage } from 'node:http'
import { HttpError } from './problem.ts'

/** A request is a few names and paths (bytes). */
export const maxRequestBytes = 64 * 1024
/** What is too long is read so far, for its sender to get to the answer (bytes). */
const maxReadBytes = 1024 * 1024

/** @throws HttpError: invalid (413) for a body that is too long, or invalid for text that is not UTF-8 */
export async function readBody(request: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = []
  let sizeBytes = 0
  for await (const piece of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    sizeBytes += piece.length
    if (sizeBytes <= maxRequestBytes) pieces.push(piece)
    else if (sizeBytes > maxReadBytes) break
  }
  if (sizeBytes > maxRequestBytes)
    throw new HttpError('invalid', `the request is longer than ${maxRequestBytes} bytes`, 413, { connection: 'close' })
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(pieces))
  } catch {
    throw new HttpError('invalid', 'the request is not text in UTF-8')
  }
}
