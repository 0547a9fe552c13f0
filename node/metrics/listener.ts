import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { P2pfsError } from '../../protocol/errors.ts'
import { isLoopbackHost, type ListenAddress } from '../base/listen-address.ts'
import type { Log } from '../base/log.ts'
import type { PlainAnswer, PlainAnswers } from '../control/plain-answers.ts'

/** Connections at once: some scrapers, and some people who look. */
const maxConnections = 64
/** The time for a request to come whole (ms): whoever is slower is cut off. */
const requestMs = 10_000
/** An address that is in use is tried again after this time (ms): the daemon before may still have it. */
const retryMs = 5_000
/** An answer is given again for so long (ms): whoever asks often costs no more than one who asks four times a second. */
const sameMs = 250
/** Paths whose answers are kept that long. */
const maxKept = 16

/** Only what this listener serves runs, is shown or is asked for; nobody frames the page or learns of it. */
const headers = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; " +
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  'x-content-type-options': 'nosniff',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
} as const

/** The listener of `--metrics-listen`: read-only HTTP. It is apart from the control socket, and can change nothing. */
export class MetricsListener implements AsyncDisposable {
  readonly #answers: readonly PlainAnswers[]
  readonly #log: Log
  readonly #address: ListenAddress
  /** Answers by path, with the time of the request (ms). */
  readonly #kept = new Map<string, { atMs: number; answer: Promise<PlainAnswer | undefined> }>()
  #server: Server | undefined
  #retry: NodeJS.Timeout | undefined

  /** @param parts `answers`: asked in order */
  constructor({ answers, log }: { answers: readonly PlainAnswers[]; log: Log }, address: ListenAddress) {
    this.#answers = answers
    this.#log = log
    this.#address = address
  }

  /** The port that it listens on; undefined where it does not. */
  get port(): number | undefined {
    const address = this.#server?.address()
    return typeof address === 'object' ? address?.port : undefined
  }

  /**
   * Begins to listen. Nothing else depends on it: where it cannot, the log says so, and it tries again until it can.
   * Resolves when it has tried once.
   */
  async start(): Promise<void> {
    const { host, port } = this.#address
    const server = createServer(
      { requestTimeout: requestMs, headersTimeout: requestMs, connectionsCheckingInterval: requestMs / 2 },
      (request, response) => void this.#handle(request, response),
    )
    server.maxConnections = maxConnections
    this.#server = server
    const outcome = Promise.withResolvers<Error | undefined>()
    server.once('error', outcome.resolve)
    server.listen({ host, port }, () => outcome.resolve(undefined))
    const error = await outcome.promise
    if (this.#server !== server) return
    if (error === undefined) {
      if (!isLoopbackHost(host)) this.#log.info('metrics and status page are open to the network', { host, port })
      return
    }
    this.#log.error('metrics and status page cannot be served; the daemon goes on without them, and tries again', {
      error: new P2pfsError('conflict', `cannot listen on ${host}, port ${port}; see --metrics-listen`, {
        cause: error,
      }),
    })
    this.#retry = setTimeout(() => void this.start(), retryMs).unref()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const server = this.#server
    this.#server = undefined
    clearTimeout(this.#retry)
    if (server?.listening !== true) return
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    server.closeAllConnections()
    await closed
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { status, type, body } = await this.#answer(request).catch((error: unknown) => {
      this.#log.warn('metrics or status page failed', { error })
      return refusal(500, 'failed; the log of the daemon says why')
    })
    response.writeHead(status, { ...headers, 'content-type': type, 'content-length': Buffer.byteLength(body) })
    response.end(request.method === 'HEAD' ? undefined : body)
  }

  async #answer({ method, url = '', headers: { host } }: IncomingMessage): Promise<PlainAnswer> {
    if (method !== 'GET' && method !== 'HEAD') return refusal(405, 'only GET is answered here')
    if (isLoopbackHost(this.#address.host) && !isForLoopback(host))
      return refusal(421, 'this address is for this host alone; ask for it by the address that it listens on')
    const [path = ''] = url.split('?')
    return (await this.#recent(path)) ?? refusal(404, 'no such page')
  }

  async #recent(path: string): Promise<PlainAnswer | undefined> {
    const nowMs = performance.now()
    const kept = this.#kept.get(path)
    if (kept !== undefined && nowMs - kept.atMs < sameMs) return await kept.answer
    const answer = this.#first(path)
    // Paths that are not there are many, and cost nothing.
    if (this.#kept.size < maxKept || kept !== undefined) this.#kept.set(path, { atMs: nowMs, answer })
    const found = await answer.catch((error: unknown) => {
      this.#kept.delete(path)
      throw error
    })
    if (found === undefined) this.#kept.delete(path)
    return found
  }

  async #first(path: string): Promise<PlainAnswer | undefined> {
    for (const answers of this.#answers) {
      const answer = await answers.answer(path)
      if (answer !== undefined) return answer
    }
    return undefined
  }
}

function refusal(status: number, message: string): PlainAnswer {
  return { status, type: 'text/plain; charset=utf-8', body: `${message}\n` }
}

/**
 * Whether a request names this host as itself. A page of others whose name leads to 127.0.0.1 (DNS rebinding) would
 * otherwise read in a browser on this host what is for this host alone.
 */
function isForLoopback(host: string | undefined): boolean {
  if (host === undefined) return true
  const name = /^\[(.*)\](?::\d+)?$/.exec(host)?.[1] ?? host.replace(/:\d+$/, '')
  return isLoopbackHost(name.toLowerCase())
}
