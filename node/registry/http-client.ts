import { request, type Dispatcher } from 'undici'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Bandwidth } from '../base/bandwidth.ts'
import { orAbort } from '../base/single-flight.ts'
import { Urgency } from '../base/urgency.ts'
import { Certificates, type CertificateOptions } from './certificates.ts'
import { Dispatchers } from './dispatchers.ts'
import { headerOf, textOf, type HttpRequest, type HttpResponse, type TextResponse } from './http-messages.ts'
import { OutageWatch, type Listening } from './outage-watch.ts'
import { proxyFor, type Environment } from './proxies.ts'
import { reachKey, ReachGuard, type Reach } from './reach.ts'
import { RegistryTraffic } from './registry-traffic.ts'
import { defaultLimits, RequestGate, type RequestLimits } from './request-gate.ts'
import { maxPauseMs, realClock, type Clock } from './retry.ts'
import { StallTimer } from './stall-timer.ts'
import { settingsFor, type ServerTls } from './tls-settings.ts'
import { transportError } from './transport-error.ts'

/** Milliseconds. */
export interface HttpTimeouts {
  connectMs: number
  /** From the request to the beginning of the answer. */
  headersMs: number
  /** Between two pieces of a body. */
  idleMs: number
}

export interface HttpClientOptions {
  userAgent: string
  timeouts?: Partial<HttpTimeouts>
  limits?: Partial<RequestLimits>
  /** Limits on what bodies bring: all of them are kept. */
  bandwidths?: readonly Pick<Bandwidth, 'take'>[]
  certificates?: CertificateOptions
  /** Counts what becomes of requests. */
  traffic?: RegistryTraffic
  /** For HTTP_PROXY, HTTPS_PROXY and NO_PROXY. */
  environment?: Environment
}

const defaultTimeouts: HttpTimeouts = { connectMs: 5_000, headersMs: 30_000, idleMs: 30_000 }
/** More redirects than this are a loop. */
const maxRedirects = 5
/** Hosts whose requests are counted. */
const maxGates = 256
/**
 * A body that nobody wants is read to its end, for the connection's sake, if it is this short (bytes) and fast (ms).
 */
const discardBytes = 64 * 1024
const discardMs = 1_000

/** HTTP with bounded connections, requests and times, through proxies, with private certificate authorities. */
export class HttpClient {
  readonly #userAgent: string
  readonly #clock: Clock
  readonly #timeouts: HttpTimeouts
  readonly #limits: RequestLimits
  readonly #bandwidths: readonly Pick<Bandwidth, 'take'>[]
  readonly #certificates: Certificates
  readonly #traffic: RegistryTraffic
  readonly #environment: Environment
  readonly #guard: ReachGuard
  readonly #dispatchers: Dispatchers
  /** By host; an idle gate is dropped when there are many. */
  readonly #gates = new Map<string, RequestGate>()
  /** By the address of servers from which an answer is awaited. */
  readonly #watches = new Map<string, OutageWatch>()
  #closed: P2pfsError | undefined

  constructor(
    { clock = realClock, guard = new ReachGuard() }: { clock?: Clock; guard?: ReachGuard | undefined },
    {
      userAgent,
      timeouts,
      limits,
      bandwidths = [],
      certificates = { authorityFiles: [] },
      traffic = new RegistryTraffic(),
      environment = process.env,
    }: HttpClientOptions,
  ) {
    this.#userAgent = userAgent
    this.#clock = clock
    this.#timeouts = { ...defaultTimeouts, ...timeouts }
    this.#limits = { ...defaultLimits, ...limits }
    this.#bandwidths = bandwidths
    this.#certificates = new Certificates(clock, certificates)
    this.#traffic = traffic
    this.#environment = environment
    this.#guard = guard
    this.#dispatchers = new Dispatchers(
      { guard },
      { connections: this.#limits.connections, connectMs: this.#timeouts.connectMs },
    )
  }

  /** Reads the files that the options name, so that a mistake shows at once. @throws invalid */
  async start(): Promise<void> {
    await this.#certificates.load()
  }

  /** Ends all requests with `closed`; idempotent. */
  async close(): Promise<void> {
    this.#closed ??= new P2pfsError('closed', 'the registry client has been closed')
    for (const gate of this.#gates.values()) gate.close()
    await this.#dispatchers.destroy(this.#closed)
  }

  /**
   * Sends a request when its turn has come, and follows redirects. Credentials stay with the origin that they are for.
   * @throws unavailable, timeout where no answer comes; busy where too many wait; denied for certificates and proxies;
   *    closed
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

  /**
   * Reads the answer whole. It is small: by default it waits for no layer, neither for its turn nor for a limit on
   * bandwidth.
   * @throws invalid for more than 4 MiB; as {@link send}
   */
  async text(url: URL, options: HttpRequest): Promise<TextResponse> {
    const response = await this.send(url, { urgency: new Urgency(true), ...options })
    return { status: response.status, headers: response.headers, body: await textOf(response, url.host) }
  }

  /** See {@link ReachGuard.reachOf}. */
  async reachOf(hostname: string): Promise<Reach> {
    return await this.#guard.reachOf(hostname)
  }

  /** Sends nothing to the host for the time that it asked for, within bounds. */
  pause(host: string, ms: number): void {
    this.#gates.get(host)?.pause(Math.min(ms, maxPauseMs))
  }

  async #follow(url: URL, options: HttpRequest, leave: () => void): Promise<HttpResponse> {
    let target = url
    for (let redirects = 0; ; redirects++) {
      const headers = headersOf(url, target, options)
      const { response, listening, failure, stall } = await this.#exchange(target, { ...options, headers })
      const next = redirectOf(response, target, options)
      if (next === undefined) {
        const { idleMs } = this.#timeouts
        const { signal, urgency = new Urgency(false) } = options
        // One takes what the other has let pass: the rate is that of the lower one.
        const pass = async (bytes: number): Promise<void> => {
          for (const bandwidth of this.#bandwidths) await bandwidth.take(bytes, { signal, urgency })
        }
        return wrap(response, { url: target, failure, listening, stall, idleMs, leave, pass })
      }
      listening.close()
      await dump(response.body)
      if (redirects === maxRedirects)
        throw new P2pfsError('unavailable', `${url.host} redirects without end`, { host: url.host })
      target = next
      checkRedirect(url, target, options)
    }
  }

  /** One request and its answer. */
  async #exchange(
    target: URL,
    { method, headers, body, headersMs = this.#timeouts.headersMs, subject, tls, reach, signal }: HttpRequest,
  ): Promise<Exchange> {
    const silence = new AbortController()
    const ended = AbortSignal.any([signal, silence.signal])
    const cut = (reason: P2pfsError): void => silence.abort(reason)
    const listening = this.#listen(target, reach, cut)
    const stall = new StallTimer({ cut }, { host: target.host, subject })
    const failure = (cause: unknown): Error => {
      if (signal.aborted) return signal.reason as Error
      if (silence.signal.aborted) return silence.signal.reason as Error
      return this.#closed ?? (cause instanceof P2pfsError ? cause : transportError(target, cause))
    }
    const beginMs = performance.now()
    listening.wait()
    stall.awaitAnswer(headersMs)
    try {
      const answer = request(target, {
        method,
        headers: { 'user-agent': this.#userAgent, ...headers },
        ...(body === undefined ? {} : { body }),
        signal: ended,
        dispatcher: await this.#dispatcher(target, tls, reach),
      })
      // undici looks at the signal only when it has a connection, which may take a while to fail.
      const response = await orAbort(answer, ended)
      listening.heard()
      this.#traffic.answered(target.host, response.statusCode)
      return { response, listening, failure, stall }
    } catch (cause) {
      listening.close()
      const error = failure(cause)
      this.#traffic.failed(target.host, error, { isGivenUp: signal.aborted, waitedMs: performance.now() - beginMs })
      throw error
    } finally {
      stall.stop()
    }
  }

  #gate(host: string): RequestGate {
    if (this.#closed !== undefined) throw this.#closed
    const existing = this.#gates.get(host)
    if (existing !== undefined) return existing
    const idle = this.#gates.size < maxGates ? undefined : [...this.#gates].find(([, gate]) => gate.isIdle)
    if (idle !== undefined) this.#gates.delete(idle[0])
    const gate = new RequestGate({ clock: this.#clock }, { host, ...this.#limits })
    this.#gates.set(host, gate)
    return gate
  }

  async #dispatcher(url: URL, serverTls: ServerTls | undefined, reach: Reach | undefined): Promise<Dispatcher> {
    const proxy = proxyFor(url, this.#environment)
    if (proxy !== undefined && reach !== undefined) await this.#guard.checkForProxy(url.hostname, reach)
    const tls = settingsFor(url, serverTls)
    const context = url.protocol === 'https:' ? await this.#certificates.contextFor(url.host, tls) : undefined
    if (this.#closed !== undefined) throw this.#closed
    return this.#dispatchers.get(proxy, { context, verify: tls?.verify ?? true }, reach)
  }

  /** Listens to the server that the connection goes to: the proxy, where there is one. */
  #listen(url: URL, reach: Reach | undefined, cut: (reason: P2pfsError) => void): Listening {
    const proxy = proxyFor(url, this.#environment)
    const { protocol, hostname, port } = new URL(proxy ?? url)
    const address = {
      host: hostname.replace(/^\[(.*)\]$/, '$1'),
      port: Number(port || (protocol === 'https:' ? 443 : 80)),
    }
    const within = proxy === undefined ? reach : undefined
    const key = `${address.host} ${address.port} ${within === undefined ? '' : reachKey(within)}`
    let watch = this.#watches.get(key)
    if (watch === undefined) {
      const onIdle = (): void => void this.#watches.delete(key)
      watch = new OutageWatch(
        { onIdle },
        { ...address, unreachableMs: this.#timeouts.connectMs, lookup: within && this.#guard.lookupWithin(within) },
      )
      this.#watches.set(key, watch)
    }
    return watch.listen(cut)
  }
}

/** The headers for one hop: Authorization is for the origin of the request only, unless the request says otherwise. */
function headersOf(url: URL, target: URL, { headers, headersFor }: HttpRequest): Record<string, string> {
  const { authorization, ...others } = headers
  const isOwn = target.origin === url.origin
  return {
    ...others,
    ...(isOwn && authorization !== undefined ? { authorization } : {}),
    ...headersFor?.(target),
  }
}

/** The URL to ask next; undefined where the response is the answer. @throws unavailable for what is not a URL */
function redirectOf(
  { statusCode, headers }: Dispatcher.ResponseData,
  target: URL,
  { redirects }: HttpRequest,
): URL | undefined {
  const location = headerOf(headers, 'location')
  if (statusCode < 300 || statusCode > 399 || location === undefined) return undefined
  if (!URL.canParse(location, target.href))
    throw new P2pfsError('unavailable', `${target.host} redirects to what is not a URL`, { host: target.host })
  const next = new URL(location, target)
  return redirects === 'same-path' && next.pathname !== target.pathname ? undefined : next
}

/** @throws unavailable for a redirect that would show the request to a host that is not to see it */
function checkRedirect(url: URL, target: URL, { redirects }: HttpRequest): void {
  const details = { host: url.host }
  if (redirects === 'own' && target.origin !== url.origin) {
    throw new P2pfsError(
      'unavailable',
      `${url.host} redirects to ${target.host}, which is not to see the request`,
      details,
    )
  }
  if (url.protocol === 'https:' && target.protocol !== 'https:')
    throw new P2pfsError('unavailable', `${url.host} redirects to ${target.host} in clear`, details)
}

/** One request and its answer. */
interface Exchange {
  response: Dispatcher.ResponseData
  listening: Listening
  /** The error for what went wrong with the answer. */
  failure: (cause: unknown) => Error
  stall: StallTimer
}

function wrap(
  { statusCode, headers, body }: Dispatcher.ResponseData,
  {
    url,
    failure,
    listening,
    stall,
    idleMs,
    leave,
    pass,
  }: Omit<Exchange, 'response'> & {
    url: URL
    idleMs: number
    leave: () => void
    /** Resolves when so many bytes may pass: meanwhile the server is not waited for. */
    pass: (bytes: number) => Promise<void>
  },
): HttpResponse {
  const end = (): void => {
    stall.stop()
    listening.close()
    leave()
  }
  async function* read(): AsyncGenerator<Uint8Array> {
    try {
      const wait = (): void => {
        listening.wait()
        stall.awaitBody(idleMs)
      }
      wait()
      for await (const piece of body) {
        listening.heard()
        stall.stop()
        await pass((piece as Buffer).length)
        yield piece as Buffer
        wait()
      }
    } catch (cause) {
      throw failure(cause)
    } finally {
      end()
    }
  }
  const discard = async (): Promise<void> => {
    try {
      await dump(body)
    } finally {
      end()
    }
  }
  return { status: statusCode, headers, url, body: read(), discard }
}

async function dump(body: Dispatcher.ResponseData['body']): Promise<void> {
  await body.dump({ limit: discardBytes, signal: AbortSignal.timeout(discardMs) }).catch(() => undefined)
}
