import type { Urgency } from '../base/urgency.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { decodeContent } from './content-encoding.ts'
import type { Reach } from './reach.ts'
import type { ServerTls } from './tls-settings.ts'

/** By names in lower case. */
export type Headers = Record<string, string | string[] | undefined>

/** An answer. It holds a connection until its body is read to the end, left by a break, or discarded. */
export interface HttpResponse {
  status: number
  headers: Headers
  /** The URL that answers, after redirects. */
  url: URL
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
  /** An Authorization header among them is sent to the origin of the request only. */
  headers: Record<string, string>
  /** Further headers for a URL, Authorization among them: that of the request, and of each redirect. */
  headersFor?: (url: URL) => Record<string, string>
  /** Besides the settings of all requests. */
  tls?: ServerTls | undefined
  /** The addresses that its connections may lead to, redirects included; all by default. */
  reach?: Reach | undefined
  body?: string | Uint8Array
  /** Urgent requests go before others, and find a connection. Not urgent by default. */
  urgency?: Urgency
  /**
   * `own`: a redirect to another host is refused. `same-path`: a redirect to another path is the answer. By default
   * redirects are followed.
   */
  redirects?: 'own' | 'same-path'
  /** Messages say that this was asked for: `a token`, `manifests/latest of library/debian`. */
  subject: string
  /** The time to answer, where it is not the client's own (ms). */
  headersMs?: number
  signal: AbortSignal
}

/** Answers that are read whole: manifests and tokens (bytes). */
const maxTextBytes = 4 * 1024 * 1024

/** The time for all of such an answer: a server that sends a byte now and then does not hold it up (ms). */
const maxTextMs = 60_000

/** The first value of a header. */
export const headerOf = (headers: Headers, name: string): string | undefined => [headers[name]].flat()[0]

/** The body as text. @throws invalid for more than 4 MiB, naming `host` */
export async function textOf(response: HttpResponse, host: string): Promise<string> {
  return (await decodeContent(await bytesOf(response, host), response.headers, host)).toString()
}

/** The body as it was sent. @throws invalid for more than 4 MiB, timeout for more than a minute, naming `host` */
export async function bytesOf(response: HttpResponse, host: string): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  let length = 0
  const begunAtMs = performance.now()
  for await (const piece of response.body) {
    length += piece.length
    if (performance.now() - begunAtMs > maxTextMs)
      throw new P2pfsError('timeout', `${host} has not sent all of a text within ${maxTextMs / 1000} s`, { host })
    if (length > maxTextBytes)
      throw new P2pfsError('invalid', `${host} answers with more than ${maxTextBytes} bytes`, { host })
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}
