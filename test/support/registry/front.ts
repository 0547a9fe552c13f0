import { createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Faults, type Effect } from './faults.ts'
import { RegistryAccess, type AccessRules } from './access.ts'
import { emptyAnswer, failed, type Answer, type RegistryBackend } from './backend.ts'

/** One request and its answer. */
export interface LoggedRequest {
  method: string
  /** The path with its query. */
  path: string
  range: string | undefined
  authorized: boolean
  /** `storage` is the server that blobs are redirected to. */
  server: 'registry' | 'storage'
  /** Undefined until there is an answer. */
  status: number | undefined
  bodyBytesSent: number
}

export interface FrontOptions extends AccessRules {
  address?: string
  /** Any free port by default. */
  port?: number
  /** PEM; plain HTTP by default. */
  tls?: { key: string; cert: string }
  /** Redirects blobs to signed URLs on another port, valid for so long. */
  redirectBlobs?: { lifeMs: number; scheme?: 'http' }
}

/** The size of the pieces by which a rate is kept. */
const pieceBytes = 16 * 1024
const blobPath = /^\/v2\/.+\/blobs\/sha256:[0-9a-f]{64}$/

/**
 * The server of a registry of the lab, with access control, redirects to signed URLs, faults on command and a log of
 * requests. Its backend answers.
 */
export class RegistryFront implements AsyncDisposable {
  readonly faults = new Faults()
  /** The requests in the order of their arrival. */
  readonly log: LoggedRequest[] = []
  readonly access: RegistryAccess
  /** May be changed at any time. */
  redirectBlobs: FrontOptions['redirectBlobs']
  /** The token service redirects to this URL. */
  redirectToken: string | undefined
  /** Everything is below this path, as on a mirror of several registries. */
  pathPrefix = ''
  /** Called for each connection, and for each request that begins (1) or ends (-1). */
  onConnection: (socket: Socket) => void = () => undefined
  onActive: (change: 1 | -1) => void = () => undefined
  readonly #backend: RegistryBackend
  readonly #options: FrontOptions
  readonly #secret = randomBytes(32)
  readonly #closing = new AbortController()
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  #storage: Server | undefined
  #port = 0
  #storagePort = 0

  private constructor(backend: RegistryBackend, options: FrontOptions) {
    this.#backend = backend
    this.#options = options
    this.access = new RegistryAccess(options)
    this.redirectBlobs = options.redirectBlobs
  }

  static async start(backend: RegistryBackend, options: FrontOptions = {}): Promise<RegistryFront> {
    const front = new RegistryFront(backend, options)
    front.#port = options.port ?? 0
    await front.accept()
    front.#storage = front.#createServer('storage')
    front.#storagePort = await listen(front.#storage, 0, front.address)
    return front
  }

  get address(): string {
    return this.#options.address ?? '127.0.0.1'
  }

  /** `HOST:PORT`, for image references. */
  get authority(): string {
    return `${this.address}:${this.#port}`
  }

  get origin(): string {
    return `${this.#scheme}://${this.authority}`
  }

  get storageAuthority(): string {
    return `${this.address}:${this.#storagePort}`
  }

  /** Closes the listening socket and all connections; new connections are refused. */
  async reject(): Promise<void> {
    await close(this.#server)
    this.#server = undefined
    for (const socket of this.#sockets) if (socket.localPort === this.#port) socket.destroy()
  }

  /** Listens again on the same port. */
  async accept(): Promise<void> {
    if (this.#server !== undefined) return
    this.#server = this.#createServer('registry')
    this.#port = await listen(this.#server, this.#port, this.address)
  }

  /** The requests to both servers whose method and path match. */
  requests(path: RegExp, method?: string): LoggedRequest[] {
    return this.log.filter((entry) => path.test(entry.path) && (method === undefined || entry.method === method))
  }

  /** Ends everything, also answers that are under way; idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    await Promise.all([close(this.#server), close(this.#storage)])
    this.#server = undefined
    this.#storage = undefined
    for (const socket of this.#sockets) socket.destroy()
  }

  get #scheme(): string {
    return this.#options.tls === undefined ? 'http' : 'https'
  }

  #createServer(kind: LoggedRequest['server']): Server {
    const listener: RequestListener = (request, response) => {
      // Only the connection can fail here, on either side.
      void this.#handle(kind, request, response).catch(() => void response.destroy())
    }
    const { tls } = this.#options
    const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener)
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      this.onConnection(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
    return server
  }

  async #handle(kind: LoggedRequest['server'], request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url: path = '/', headers } = request
    const entry: LoggedRequest = {
      method,
      path,
      range: headers.range,
      authorized: headers.authorization !== undefined,
      server: kind,
      status: undefined,
      bodyBytesSent: 0,
    }
    this.log.push(entry)
    const effect = this.faults.take(method, path)
    const gone = new AbortController()
    this.onActive(1)
    response.once('close', () => {
      this.onActive(-1)
      gone.abort()
    })
    const signal = AbortSignal.any([gone.signal, this.#closing.signal])
    if (effect.drop === true) return
    if (effect.latencyMs !== undefined) await sleep(effect.latencyMs, undefined, { signal })
    const answer =
      effect.status === undefined
        ? await this.#answer(kind, request, effect, signal)
        : failed(effect.status, 'UNKNOWN', retryAfter(effect.retryAfter))
    entry.status = answer.status
    await send(request, response, answer, effect, signal, (bytes) => (entry.bodyBytesSent += bytes))
  }

  async #answer(
    kind: LoggedRequest['server'],
    request: IncomingMessage,
    effect: Effect,
    signal: AbortSignal,
  ): Promise<Answer> {
    const path = request.url ?? '/'
    if (!path.startsWith(this.pathPrefix)) return failed(404, 'NOT_FOUND')
    const url = new URL(path.slice(this.pathPrefix.length), this.origin)
    const method = request.method ?? 'GET'
    const { authorization } = request.headers
    if (kind === 'storage') {
      // Object stores refuse requests that authenticate in two ways.
      if (authorization !== undefined) return failed(400, 'InvalidArgument')
      const original = this.#verify(url)
      return original === undefined
        ? failed(403, 'AccessDenied')
        : await this.#ask(request, new URL(original, this.origin), effect, signal)
    }
    if (url.pathname === '/token' && this.redirectToken !== undefined)
      return emptyAnswer(307, { location: this.redirectToken })
    if (url.pathname === '/token') return await this.access.token(request, url)
    const refused = this.access.check(authorization, method, url, this.origin)
    if (refused !== undefined) return refused
    if (this.redirectBlobs !== undefined && (method === 'GET' || method === 'HEAD') && blobPath.test(url.pathname)) {
      return emptyAnswer(307, { location: this.#sign(url.pathname, this.redirectBlobs) })
    }
    return await this.#ask(request, url, effect, signal)
  }

  async #ask(request: IncomingMessage, url: URL, effect: Effect, signal: AbortSignal): Promise<Answer> {
    const { authorization: _authorization, host: _host, connection: _connection, ...others } = request.headers
    const headers = Object.fromEntries(
      Object.entries(others).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
    )
    const multi = headers['range']?.includes(',') === true
    if (multi && effect.ranges === 'refuse-multi') return failed(416, 'RANGE_INVALID')
    if (effect.ranges === 'ignore' || (multi && effect.ranges === 'ignore-multi')) delete headers['range']
    if (effect.shiftRangeBytes !== undefined && headers['range'] !== undefined) {
      const shifted = (digits: string): string => `${Math.max(0, Number(digits) + effect.shiftRangeBytes!)}`
      headers['range'] = headers['range'].replace(/\d+/g, shifted)
    }
    return await this.#backend.answer({ method: request.method ?? 'GET', url, headers, body: request, signal })
  }

  #sign(path: string, { lifeMs, scheme = this.#scheme }: { lifeMs: number; scheme?: string }): string {
    const expires = String(Date.now() + lifeMs)
    return `${scheme}://${this.storageAuthority}/signed${path}?expires=${expires}&signature=${this.#signature(path, expires)}`
  }

  /** The signed path; undefined if the signature is wrong or has expired. */
  #verify(url: URL): string | undefined {
    const path = url.pathname.replace(/^\/signed/, '')
    const expires = url.searchParams.get('expires') ?? ''
    if (url.searchParams.get('signature') !== this.#signature(path, expires) || Date.now() > Number(expires))
      return undefined
    return path
  }

  #signature(path: string, expires: string): string {
    return createHmac('sha256', this.#secret).update(`${path} ${expires}`).digest('hex')
  }
}

function retryAfter(value: number | Date | undefined): Record<string, string> {
  if (value === undefined) return {}
  return { 'retry-after': typeof value === 'number' ? String(value) : value.toUTCString() }
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  answer: Answer,
  effect: Effect,
  signal: AbortSignal,
  onBytes: (count: number) => void,
): Promise<void> {
  const { status, length } = answer
  const headers: Record<string, string> = { ...answer.headers }
  if (length !== undefined && effect.truncateAfterBytes === undefined) headers['content-length'] = String(length)
  // Without this, an answer that comes before the body is read would be lost with the connection.
  if (!request.readableEnded && request.method !== 'GET' && request.method !== 'HEAD') request.resume()
  response.writeHead(status, headers)
  if (request.method === 'HEAD') return void response.end()
  response.flushHeaders()
  const ends = [effect.resetAfterBytes, effect.closeAfterBytes, effect.truncateAfterBytes, effect.stallAfterBytes]
  const end = Math.min(...ends.map((bytes) => bytes ?? Infinity))
  // Only successful answers are broken off: errors are small and come whole.
  const limit = status < 300 ? end : Infinity
  const firstByte = Number(/^bytes (\d+)-/.exec(headers['content-range'] ?? '')?.[1] ?? 0)
  let sent = 0
  for await (const piece of pieces(answer.body, limit)) {
    const bytes = status < 300 ? flipped(piece, corruptIn(effect, firstByte + sent, piece.length)) : piece
    if (effect.rateBytesPerSecond !== undefined)
      await sleep((bytes.length / effect.rateBytesPerSecond) * 1000, undefined, { signal })
    signal.throwIfAborted()
    const roomy = response.write(bytes)
    sent += bytes.length
    onBytes(bytes.length)
    if (!roomy) await once(response, 'drain', { signal })
  }
  if (sent < limit || limit === effect.truncateAfterBytes) return void response.end()
  if (limit === effect.stallAfterBytes) return
  await flushed(response)
  if (limit === effect.resetAfterBytes) request.socket.resetAndDestroy()
  else request.socket.destroySoon()
}

/** The body in small pieces, up to `limit`. */
async function* pieces(body: Answer['body'], limit: number): AsyncGenerator<Uint8Array> {
  let left = limit
  if (left === 0) return
  for await (const large of body) {
    for (let offset = 0; offset < large.length; offset += pieceBytes) {
      const piece = large.subarray(offset, Math.min(offset + pieceBytes, offset + left))
      left -= piece.length
      yield piece
      if (left === 0) return
    }
  }
}

/** The positions, from `start`, of the bytes of [start, start + length) that are to be wrong. */
function corruptIn({ corruptByteAt, corruptEveryBytes = Infinity }: Effect, start: number, length: number): number[] {
  const found = corruptByteAt === undefined ? [] : [corruptByteAt - start]
  const first = Math.ceil(start / corruptEveryBytes) * corruptEveryBytes
  for (let offset = first; offset < start + length; offset += corruptEveryBytes) found.push(offset - start)
  return found.filter((position) => position >= 0 && position < length)
}

function flipped(piece: Uint8Array, positions: readonly number[]): Uint8Array {
  if (positions.length === 0) return piece
  const copy = Uint8Array.from(piece)
  for (const position of positions) copy[position]! ^= 1
  return copy
}

/** Resolves when all that was written has gone out, before a reset. */
async function flushed(response: ServerResponse): Promise<void> {
  await new Promise<void>((resolve) => response.write('', () => resolve()))
}

async function listen(server: Server, port: number, address: string): Promise<number> {
  server.listen(port, address)
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

async function close(server: Server | undefined): Promise<void> {
  if (server === undefined) return
  const closed = once(server, 'close')
  server.close()
  server.closeAllConnections()
  await closed
}
