import type { Urgency } from '../base/urgency.ts'
import { P2pfsError } from '../../protocol/errors.ts'

/** By names in lower case. */
export type Headers = Record<string, string | string[] | undefined>

/** An answer. It holds a connection until its body is read to the end, left by a break, or discarded. */
export interface HttpResponse {
  status: number
  headers: Headers
  /** Whether the answer comes from another origin than the one that was asked. */
  isRedirected: boolean
  /** Throws as {@link HttpClient.send} does. */
  body: AsyncIterable<Uint8Array>
  /** Ends an answer whose body nobody wants. */
  discard: () => Promise<void>
}

export interface TextResponse {
  status: number
  headers: Headers
  body: string
}

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH'
  headers: Record<string, string>
  body?: string | Uint8Array
  /** Urgent requests go before others, and find a connection. Not urgent by default. */
  urgency?: Urgency
  /** `own`: a redirect to another host is refused; `return`: a redirect is the answer. By default it is followed. */
  redirects?: 'own' | 'return'
  /** The time to answer, where it is not the client's own (ms). */
  headersMs?: number
  signal: AbortSignal
}

/** Answers that are read whole: manifests and tokens (bytes). */
const maxTextBytes = 4 * 1024 * 1024

/** The first value of a header. */
export const headerOf = (headers: Headers, name: string): string | undefined => [headers[name]].flat()[0]

/** The body as text. @throws invalid for more than 4 MiB, naming `host` */
export async function textOf(response: HttpResponse, host: string): Promise<string> {
  const pieces: Uint8Array[] = []
  let length = 0
  for await (const piece of response.body) {
    length += piece.length
    if (length > maxTextBytes)
      throw new P2pfsError('invalid', `${host} answers with more than ${maxTextBytes} bytes`, { host })
    pieces.push(piece)
  }
  return Buffer.concat(pieces).toString()
}
