import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { Answer, line } from './answer.ts'
import type { Operations } from './operations.ts'
import type { PlainAnswer, PlainAnswers } from './plain-answers.ts'
import { HttpError, problemOf } from './problem.ts'
import { readBody } from './request-body.ts'
import { parseBody } from './requests.ts'
import { findRoute, runOperation } from './routes.ts'
import { ControlSocket, listen } from './socket.ts'

/** How long a caller may take for the head of a request, and for all of it (ms): they are a few hundred bytes. */
const headTimeoutMs = 10_000
const requestTimeoutMs = 20_000
/** How often these are looked at (ms). */
const timeoutCheckMs = 2_000
/** Connections at once; beyond it they are closed. Each has a request under way, or sends nothing for a few seconds. */
const maxConnections = 1_024
/**
 * How long requests may go on when the daemon is to stop (ms): the mount of an image that is here takes a hundredth of
 * it. A supervisor gives a daemon 10 s.
 */
const drainMs = 3_000

/** The OpenAPI document of the API; `npm run openapi` makes it. */
const descriptionPath = '/v1/openapi.json'
const descriptionFile = new URL('openapi.json', import.meta.url)

/** A control socket that the supervisor has bound, and that outlives this process. */
export interface InheritedSocket {
  fd: number
  temporaryPath: string
}

export interface ControlServerOptions {
  /** Path of the control socket. */
  socket: string
  /** Without it the server makes the socket, and removes it when it stops. */
  inherited?: InheritedSocket | undefined
  /** Group that may open the socket; see {@link ControlSocket}. */
  group?: string
  /** For tests. */
  limits?: Partial<typeof defaultLimits>
}

const defaultLimits = { headTimeoutMs, requestTimeoutMs, timeoutCheckMs, maxConnections, drainMs }

/** The control API: HTTP on a unix socket that only the daemon's own user can open, and a group where one is named. */
export class ControlServer {
  readonly #operations: Operations
  readonly #plain: PlainAnswers | undefined
  readonly #log: Log
  readonly #socket: ControlSocket
  readonly #inherited: InheritedSocket | undefined
  readonly #limits: typeof defaultLimits
  readonly #stopping = new AbortController()
  readonly #running = new Set<Promise<void>>()
  #server: Server | undefined
  #isDraining = false

  /** @param parts `plain`: answers that are not of the API */
  constructor(
    { operations, plain, log }: { operations: Operations; plain?: PlainAnswers; log: Log },
    { socket, inherited, group, limits }: ControlServerOptions,
  ) {
    this.#operations = operations
    this.#plain = plain
    this.#log = log
    this.#limits = { ...defaultLimits, ...limits }
    this.#socket = new ControlSocket(socket, inherited?.temporaryPath, group)
    this.#inherited = inherited
  }

  /** @throws conflict if the socket's path is in use; invalid, unavailable if the socket cannot be made */
  async start(): Promise<void> {
    const { headTimeoutMs: headersTimeout, requestTimeoutMs: requestTimeout, timeoutCheckMs } = this.#limits
    const server = createServer(
      // A name of a host means nothing on a unix socket.
      { headersTimeout, requestTimeout, connectionsCheckingInterval: timeoutCheckMs, requireHostHeader: false },
      (request, response) => {
        const running = this.#handle(request, response).finally(() => this.#running.delete(running))
        this.#running.add(running)
      },
    )
    server.maxConnections = this.#limits.maxConnections
    server.on('clientError', refuseMalformed)
    if (this.#inherited === undefined) {
      await this.#socket.prepare()
      await this.#socket.listen(server)
    } else {
      await listen(server, { fd: this.#inherited.fd })
    }
    this.#server = server
    await this.#socket.publish()
  }

  /**
   * Takes no further connections, lets requests go on for a moment, then aborts them, and waits until each has its answer.
   * With an inherited socket new connections wait in it.
   */
  async stop(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    this.#isDraining = true
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    // A client that has connected before may still send its request: it gets an answer, too.
    const drained = Promise.withResolvers<void>()
    const timer = setTimeout(drained.resolve, this.#limits.drainMs)
    await Promise.race([closed, drained.promise])
    clearTimeout(timer)
    this.#stopping.abort(new P2pfsError('closed', 'the daemon is stopping; try again when it is back'))
    // Requests that have arrived and were not read yet are read in the next turn of the event loop.
    do {
      await Promise.all(this.#running)
      await nextTurn()
    } while (this.#running.size > 0)
    server.closeAllConnections()
    await closed
    if (this.#inherited === undefined) await this.#socket.remove()
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort(new P2pfsError('closed', 'the caller has gone')))
    const signal = AbortSignal.any([gone.signal, this.#stopping.signal])
    const answer = new Answer(response, request.headers.accept)
    try {
      const url = urlOf(request)
      const plain = await this.#plainAnswer(request.method ?? '', url.pathname)
      const result = plain ?? (await this.#run(request, url, answer, signal))
      if (this.#isDraining) response.shouldKeepAlive = false
      if (plain === undefined) answer.result(result)
      else answer.plain(plain)
    } catch (thrown) {
      // An operation that was aborted in the middle may throw an error of its own instead of the signal's reason.
      const error: unknown = signal.aborted && !isP2pfsError(thrown) ? signal.reason : thrown
      const { problem, headers } = problemOf(error)
      const { method, url: path } = request
      const fields = { error, method, path, status: problem.status }
      if (isP2pfsError(error)) this.#log[problem.status < 500 ? 'info' : 'warn']('request failed', fields)
      else this.#log.error('request failed unexpectedly', fields)
      if (this.#isDraining) response.shouldKeepAlive = false
      answer.failure(problem, headers)
    }
  }

  async #plainAnswer(method: string, path: string): Promise<PlainAnswer | undefined> {
    const isRead = method === 'GET' || method === 'HEAD'
    if (path !== descriptionPath) return isRead ? await this.#plain?.answer(path) : undefined
    if (!isRead)
      throw new HttpError('unsupported', `${path} takes GET, HEAD, not ${method}`, 405, { allow: 'GET, HEAD' })
    return { status: 200, type: 'application/json', body: await readFile(descriptionFile) }
  }

  async #run(request: IncomingMessage, url: URL, answer: Answer, signal: AbortSignal): Promise<object> {
    const { pathname, searchParams } = url
    const { method, name, parameters } = findRoute(request.method ?? '', pathname)
    const text = method === 'POST' ? await readBody(request) : ''
    const fields = method === 'POST' ? (text === '' ? {} : parseBody(text)) : Object.fromEntries(searchParams)
    // Not begun: whoever sent it may send it again, whatever it is.
    this.#stopping.signal.throwIfAborted()
    const options = { signal, onProgress: answer.progress.bind(answer) }
    return await runOperation(this.#operations, name, { ...fields, ...parameters }, options, () => answer.begin())
  }
}

function urlOf(request: IncomingMessage): URL {
  const url = request.url ?? ''
  const parsed = url.startsWith('/') ? URL.parse(`http://p2pfs${url}`) : URL.parse(url)
  if (parsed === null) throw new HttpError('invalid', `not a path: ${url}`)
  return parsed
}

/** Answers what Node takes for no HTTP, for too long a head or for too slow a caller. */
function refuseMalformed(error: Error & { code?: string }, socket: Duplex & { bytesWritten?: number }): void {
  // Bytes of an answer are out, so what follows would be taken for more of it.
  if (!socket.writable || socket.bytesWritten !== 0) {
    socket.destroy()
    return
  }
  const { code = '' } = error
  const [status, detail] =
    code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? [408, 'the request did not come in time']
      : code === 'HPE_HEADER_OVERFLOW'
        ? [431, 'the head of the request is too long']
        : [400, 'this is no HTTP']
  const { problem } = problemOf(new HttpError('invalid', detail, status))
  const body = line(problem)
  const headers = ['content-type: application/problem+json', `content-length: ${body.length}`, 'connection: close']
  socket.end([`HTTP/1.1 ${status} ${problem.title}`, ...headers, '', body].join('\r\n'))
}
