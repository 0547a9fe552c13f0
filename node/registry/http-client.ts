import type { SecureContext } from 'node:tls'
import { Agent, ProxyAgent, request, type Dispatcher } from 'undici'
import { P2pfsError } from '../../protocol/errors.ts'
import { orAbort } from '../base/single-flight.ts'
import { Urgency } from '../base/urgency.ts'
import { Certificates, type CertificateOptions } from './certificates.ts'
import { OutageWatch, type Listening } from './outage-watch.ts'
import { proxyFor, type Environment } from './proxies.ts'
import { defaultLimits, RequestGate, type RequestLimits } from './request-gate.ts'
import { maxPauseMs, realClock, type Clock } from './retry.ts'

export type Headers = Record<string, string | string[] | undefined>

/** An answer. Its body is read to its end, left by a break, or discarded: until then it holds a connection. */
export interface HttpResponse {
  status: number
  headers: Headers
  /** Whether it comes from another host than the one that was asked. */
  redirected: boolean
  /** With errors as {@link HttpClient.send} has them. */
  body: AsyncIterable<Uint8Array>
  /** Ends it where nobody wants the body. */
  discard: () => Promise<void>
}

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH'
  headers: Record<string, string>
  body?: string | Uint8Array
  /** An urgent one goes before others, and finds a connection; it is not where not given. */
  urgency?: Urgency
  /** `own`: one to another host is refused; `return`: it is the answer. They are followed by default. */
  redirects?: 'own' | 'return'
  /** To answer, where it is not the client's own time, milliseconds. */
  headersMs?: number
  signal: AbortSignal
}

/** Milliseconds. */
export interface HttpTimeouts {
  connectMs: number
  /** To answer. */
  headersMs: number
  /** Between two pieces of a body. */
  idleMs: number
}

export interface HttpClientOptions {
  userAgent: string
  timeouts?: Partial<HttpTimeouts>
  limits?: Partial<RequestLimits>
  certificates?: CertificateOptions
  /** For HTTP_PROXY, HTTPS_PROXY and NO_PROXY. */
  environment?: Environment
}

const defaultTimeouts: HttpTimeouts = { connectMs: 5_000, headersMs: 30_000, idleMs: 30_000 }
/** As browsers have it; more is a loop. */
const maxRedirects = 5
/** Answers that are read whole: manifests and tokens, bytes. */
const maxTextBytes = 4 * 1024 * 1024
/** Hosts whose requests are counted; proxies and certificates that differ. */
const maxGates = 256
const maxDispatchers = 64
/** A body that nobody wants is read to its end, for the connection's sake, if it is no longer and comes in time: bytes, milliseconds. */
const discardBytes = 64 * 1024
const discardMs = 1_000

/** HTTP with bounded connections, requests and times, through proxies, with private authorities; errors in the project's terms. */
export class HttpClient {
  readonly #userAgent: string
  readonly #clock: Clock
  readonly #timeouts: HttpTimeouts
  readonly #limits: RequestLimits
  readonly #certificates: Certificates
  readonly #environment: Environment
  readonly #gates = new Map<string, RequestGate>()
  readonly #dispatchers = new Map<string, Dispatcher>()
  /** Of the servers that something is waited for from. */
  readonly #watches = new Map<string, OutageWatch>()
  readonly #contextNames = new WeakMap<SecureContext, number>()
  #contexts = 0
  #closed: P2pfsError | undefined

  constructor(
    { clock = realClock }: { clock?: Clock },
    {
      userAgent,
      timeouts,
      limits,
      certificates = { authorityFiles: [] },
      environment = process.env,
    }: HttpClientOptions,
  ) {
    this.#userAgent = userAgent
    this.#clock = clock
    this.#timeouts = { ...defaultTimeouts, ...timeouts }
    this.#limits = { ...defaultLimits, ...limits }
    this.#certificates = new Certificates(clock, certificates)
    this.#environment = environment
  }

  /** Reads what the options name, so that a mistake shows at once. @throws invalid */
  async start(): Promise<void> {
    await this.#certificates.load()
  }

  /** Ends what is under way with `closed`; idempotent. */
  async close(): Promise<void> {
    this.#closed ??= new P2pfsError('closed', 'the registry client has been closed')
    for (const gate of this.#gates.values()) gate.close()
    await Promise.all(
      [...this.#dispatchers.values()].map(async (dispatcher) => await dispatcher.destroy(this.#closed!)),
    )
    this.#dispatchers.clear()
  }

  /**
   * One request, when its turn has come, redirects followed; credentials stay with the host that they were for.
   * @throws unavailable, timeout where no answer comes; busy where too many wait; denied for certificates and proxies; closed
   */
  async send(url: URL, options: HttpRequest): Promise<HttpResponse> {
    const leave = await this.#gate(url.host).enter({
      urgency: options.urgency ?? new Urgency(false),
      signal: options.signal,
    })
    try {
      return await this.#follow(url, options, leave)
    } catch (error) {
      leave()
      throw error
    }
  }

  /** Sends nothing to the host for so long, within bounds: it asked for it. */
  pause(host: string, ms: number): void {
    this.#gates.get(host)?.pause(Math.min(ms, maxPauseMs))
  }

  async #follow(
    url: URL,
    { method, headers, body, headersMs, redirects: allowed, signal }: HttpRequest,
    leave: () => void,
  ): Promise<HttpResponse> {
    let target = url
    for (let redirects = 0; ; redirects++) {
      const { authorization, ...others } = headers
      const own = target.origin === url.origin
      let response: Dispatcher.ResponseData
      const cut = new AbortController()
      const either = AbortSignal.any([signal, cut.signal])
      const listening = this.#listen(target, (reason) => cut.abort(reason))
      listening.wait()
      try {
        const answer = request(target, {
          method,
          headers: {
            'user-agent': this.#userAgent,
            ...others,
            ...(own && authorization !== undefined ? { authorization } : {}),
          },
          ...(body === undefined ? {} : { body }),
          ...(headersMs === undefined ? {} : { headersTimeout: headersMs }),
          signal: either,
          dispatcher: await this.#dispatcher(target),
        })
        // undici looks at the signal when it has a connection, which may take its own time to fail.
        response = await orAbort(answer, either)
      } catch (cause) {
        listening.close()
        throw this.#failure(target, cause, signal, cut.signal)
      }
      listening.heard()
      const location = response.headers['location']
      if (
        response.statusCode < 300 ||
        response.statusCode > 399 ||
        typeof location !== 'string' ||
        allowed === 'return'
      ) {
        return this.#wrap(response, !own, (cause) => this.#failure(target, cause, signal, cut.signal), listening, leave)
      }
      listening.close()
      await dump(response.body)
      if (redirects === maxRedirects || !URL.canParse(location, target.href))
        throw new P2pfsError('unavailable', `${url.host} redirects without end`, { host: url.host })
      target = new URL(location, target)
      if (allowed === 'own' && target.origin !== url.origin)
        throw new P2pfsError(
          'unavailable',
          `${url.host} redirects to ${target.host}, which is not to see the request`,
          { host: url.host },
        )
      if (url.protocol === 'https:' && target.protocol !== 'https:')
        throw new P2pfsError('unavailable', `${url.host} redirects to ${target.host} in clear`, { host: url.host })
    }
  }

  #wrap(
    { statusCode, headers, body }: Dispatcher.ResponseData,
    redirected: boolean,
    failure: (cause: unknown) => Error,
    listening: Listening,
    leave: () => void,
  ): HttpResponse {
    async function* read(): AsyncGenerator<Uint8Array> {
      try {
        listening.wait()
        for await (const piece of body) {
          listening.heard()
          yield piece as Buffer
          listening.wait()
        }
      } catch (cause) {
        throw failure(cause)
      } finally {
        listening.close()
        leave()
      }
    }
    const discard = async (): Promise<void> => {
      try {
        await dump(body)
      } finally {
        listening.close()
        leave()
      }
    }
    return { status: statusCode, headers, redirected, body: read(), discard }
  }

  /** A request whose answer is read whole. @throws invalid for one of more than 4 MiB; as {@link send} */
  async text(url: URL, options: HttpRequest): Promise<{ status: number; headers: Headers; body: string }> {
    const response = await this.send(url, options)
    return { status: response.status, headers: response.headers, body: await textOf(response, url.host) }
  }

  #gate(host: string): RequestGate {
    if (this.#closed !== undefined) throw this.#closed
    let gate = this.#gates.get(host)
    if (gate === undefined) {
      gate = new RequestGate({ clock: this.#clock }, { host, ...this.#limits })
      const idle = this.#gates.size < maxGates ? undefined : [...this.#gates].find(([, other]) => other.isIdle)
      if (idle !== undefined) this.#gates.delete(idle[0])
      this.#gates.set(host, gate)
    }
    return gate
  }

  async #dispatcher(url: URL): Promise<Dispatcher> {
    const proxy = proxyFor(url, this.#environment)
    const context = url.protocol === 'https:' ? await this.#certificates.contextFor(url.host) : undefined
    if (this.#closed !== undefined) throw this.#closed
    const key = `${context === undefined ? '' : this.#nameOf(context)} ${proxy ?? ''}`
    const known = this.#dispatchers.get(key)
    if (known !== undefined) return known
    if (this.#dispatchers.size >= maxDispatchers) this.#retire([...this.#dispatchers.keys()][0]!)
    const { connectMs, headersMs, idleMs } = this.#timeouts
    const connect = { timeout: connectMs, ...(context === undefined ? {} : { secureContext: context }) }
    const common = {
      connections: this.#limits.connections,
      pipelining: 1,
      headersTimeout: headersMs,
      bodyTimeout: idleMs,
    }
    const dispatcher =
      proxy === undefined
        ? new Agent({ ...common, connect })
        : // As Docker does: a tunnel for HTTPS alone.
          new ProxyAgent({ ...common, uri: proxy, proxyTunnel: false, requestTls: connect, proxyTls: connect })
    this.#dispatchers.set(key, dispatcher)
    return dispatcher
  }

  /** Requests that are under way on it come to their end. */
  #retire(key: string): void {
    void this.#dispatchers.get(key)?.close()
    this.#dispatchers.delete(key)
  }

  #nameOf(context: SecureContext): number {
    const known = this.#contextNames.get(context)
    if (known === undefined) this.#contextNames.set(context, ++this.#contexts)
    return known ?? this.#contexts
  }

  /** At whichever server the connection is to. */
  #listen(url: URL, cut: (reason: P2pfsError) => void): Listening {
    const { protocol, hostname, port } = new URL(proxyFor(url, this.#environment) ?? url)
    const at = { host: hostname.replace(/^\[(.*)\]$/, '$1'), port: Number(port || (protocol === 'https:' ? 443 : 80)) }
    const key = `${at.host} ${at.port}`
    let watch = this.#watches.get(key)
    if (watch === undefined) {
      watch = new OutageWatch(
        { onIdle: () => void this.#watches.delete(key) },
        { ...at, unreachableMs: this.#timeouts.connectMs },
      )
      this.#watches.set(key, watch)
    }
    return watch.listen(cut)
  }

  #failure(url: URL, cause: unknown, signal: AbortSignal, cut: AbortSignal): Error {
    if (signal.aborted) return signal.reason as Error
    if (cut.aborted) return cut.reason as Error
    return this.#closed ?? (cause instanceof P2pfsError ? cause : transportError(url, cause))
  }
}

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

async function dump(body: Dispatcher.ResponseData['body']): Promise<void> {
  await body.dump({ limit: discardBytes, signal: AbortSignal.timeout(discardMs) }).catch(() => undefined)
}

/** OpenSSL's words for a chain that ends with nobody known: node:tls, "X509 certificate error codes". */
const unknownAuthority =
  /^(?:SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT(?:_LOCALLY)?)$/

function transportError(url: URL, cause: unknown): P2pfsError {
  const error = cause as NodeJS.ErrnoException
  const details = { cause, host: url.host }
  const code = error.code ?? ''
  if (unknownAuthority.test(code)) {
    return new P2pfsError(
      'denied',
      `the certificate of ${url.host} is from an authority that is not known here: name its file with --registry-ca, or put it into /etc/docker/certs.d/${url.host}/ca.crt`,
      details,
    )
  }
  if (/^(?:CERT_|ERR_TLS_CERT_)/.test(code))
    return new P2pfsError('denied', `the certificate of ${url.host} is not good: ${error.message}`, details)
  if (/proxy.*\(407\)/i.test(error.message))
    return new P2pfsError(
      'denied',
      `the proxy refuses to reach ${url.host}: check the credentials in HTTP_PROXY and HTTPS_PROXY`,
      details,
    )
  const timeout = code.endsWith('_TIMEOUT')
  const why =
    code === 'UND_ERR_CONNECT_TIMEOUT'
      ? 'no connection in time'
      : timeout
        ? 'no answer in time'
        : error.message || code || 'connection failed'
  const tls = /wrong version number|EPROTO|packet length too long/.test(`${error.message} ${code}`)
    ? '; if it speaks plain HTTP, name it with --insecure-registry'
    : ''
  return new P2pfsError(timeout ? 'timeout' : 'unavailable', `cannot reach ${url.host}: ${why}${tls}`, details)
}
