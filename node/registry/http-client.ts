import { Agent, request, type Dispatcher } from 'undici'
import { P2pfsError } from '../../protocol/errors.ts'

export type HttpResponse = Dispatcher.ResponseData

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST'
  headers: Record<string, string>
  body?: string
  signal: AbortSignal
}

/** Connections per host: enough to fill a link, and no storm, whatever the number of mounts. */
const connections = 16
/** To connect; to answer; between two pieces of a body: milliseconds. */
const timeouts = { connectMs: 5_000, headersMs: 30_000, bodyMs: 30_000 } as const
/** As browsers have it; more is a loop. */
const maxRedirects = 5
/** Answers that are read whole: manifests and tokens, bytes. */
const maxTextBytes = 4 * 1024 * 1024

/** HTTP with bounded connections and times, and errors in the project's terms. */
export class HttpClient {
  readonly #agent = new Agent({
    connections,
    pipelining: 1,
    connect: { timeout: timeouts.connectMs },
    headersTimeout: timeouts.headersMs,
    bodyTimeout: timeouts.bodyMs,
  })
  readonly #userAgent: string

  constructor({ userAgent }: { userAgent: string }) {
    this.#userAgent = userAgent
  }

  /**
   * One request, redirects followed; credentials stay with the host that they were for.
   * @throws unavailable, timeout where no answer comes
   */
  async send(url: URL, { method, headers, body, signal }: HttpRequest): Promise<HttpResponse> {
    let target = url
    for (let redirects = 0; ; redirects++) {
      const { authorization, ...others } = headers
      const own = target.host === url.host && target.protocol === url.protocol
      let response: HttpResponse
      try {
        response = await request(target, {
          method,
          headers: { 'user-agent': this.#userAgent, ...others, ...(own && authorization !== undefined ? { authorization } : {}) },
          ...(body === undefined ? {} : { body }),
          signal,
          dispatcher: this.#agent,
        })
      } catch (cause) {
        throw signal.aborted ? (signal.reason as Error) : transportError(target, cause)
      }
      const location = response.headers['location']
      if (response.statusCode < 300 || response.statusCode > 399 || typeof location !== 'string') return response
      await discard(response)
      if (redirects === maxRedirects || !URL.canParse(location, target.href)) throw new P2pfsError('unavailable', `${url.host} redirects without end`, { host: url.host })
      target = new URL(location, target)
      if (url.protocol === 'https:' && target.protocol !== 'https:') throw new P2pfsError('unavailable', `${url.host} redirects to ${target.host} in clear`, { host: url.host })
    }
  }

  /** A request whose answer is read whole. @throws invalid for one of more than 4 MiB; as {@link send} */
  async text(url: URL, options: HttpRequest): Promise<{ status: number; headers: HttpResponse['headers']; body: string }> {
    const response = await this.send(url, options)
    const pieces: Uint8Array[] = []
    let length = 0
    for await (const piece of bodyOf(response, url, options.signal)) {
      length += piece.length
      if (length > maxTextBytes) throw new P2pfsError('invalid', `${url.host} answers with more than ${maxTextBytes} bytes`, { host: url.host })
      pieces.push(piece)
    }
    return { status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces).toString() }
  }
}

/** The body, with errors as {@link HttpClient.send} has them. */
export async function* bodyOf(response: HttpResponse, url: URL, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of response.body) yield piece as Buffer
  } catch (cause) {
    throw signal.aborted ? (signal.reason as Error) : transportError(url, cause)
  }
}

/** Ends a response whose body nobody wants. */
export async function discard(response: HttpResponse): Promise<void> {
  await response.body.dump().catch(() => undefined)
}

function transportError(url: URL, cause: unknown): P2pfsError {
  const error = cause as NodeJS.ErrnoException
  const timeout = error.code?.endsWith('_TIMEOUT') === true
  const why = error.code === 'UND_ERR_CONNECT_TIMEOUT' ? 'no connection in time' : timeout ? 'no answer in time' : error.message || error.code || 'connection failed'
  const tls = /wrong version number|EPROTO|packet length too long/.test(`${error.message} ${error.code}`) ? '; if it speaks plain HTTP, name it with --insecure-registry' : ''
  return new P2pfsError(timeout ? 'timeout' : 'unavailable', `cannot reach ${url.host}: ${why}${tls}`, { cause, host: url.host })
}
