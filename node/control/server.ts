import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import type { Progress } from './api.ts'
import type { OperationOptions, Operations } from './operations.ts'
import type { PlainAnswers } from './plain-answers.ts'
import { parseBody } from './requests.ts'
import { routes } from './routes.ts'
import { ControlSocket, listen } from './socket.ts'

/** A request is a few names and paths (bytes). */
const maxRequestBytes = 64 * 1024
/** Progress lines are sent at most this often (ms). */
const progressIntervalMs = 100

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
}

/** The control API: HTTP on a unix socket that only the daemon's own user can open. */
export class ControlServer {
  readonly #operations: Operations
  readonly #plain: PlainAnswers | undefined
  readonly #log: Log
  readonly #socket: ControlSocket
  readonly #inherited: InheritedSocket | undefined
  readonly #stopping = new AbortController()
  readonly #running = new Set<Promise<void>>()
  #server: Server | undefined

  /** @param parts `plain`: answers that are not of the API */
  constructor(
    { operations, plain, log }: { operations: Operations; plain?: PlainAnswers; log: Log },
    { socket, inherited }: ControlServerOptions,
  ) {
    this.#operations = operations
    this.#plain = plain
    this.#log = log
    this.#socket = new ControlSocket(socket, inherited?.temporaryPath)
    this.#inherited = inherited
  }

  /** @throws conflict if the socket's path is in use; invalid, unavailable if the socket cannot be made */
  async start(): Promise<void> {
    const server = createServer((request, response) => {
      const running = this.#handle(request, response).finally(() => this.#running.delete(running))
      this.#running.add(running)
    })
    if (this.#inherited === undefined) {
      await this.#socket.prepare()
      await this.#socket.listen(server)
    } else {
      await listen(server, { fd: this.#inherited.fd })
    }
    this.#server = server
    await this.#socket.publish()
  }

  /** Aborts the requests that are running, and waits until each has its answer. */
  async stop(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    this.#stopping.abort(new P2pfsError('closed', 'the daemon is stopping; try again when it is back'))
    await Promise.all(this.#running)
    server.closeAllConnections()
    await closed
    if (this.#inherited === undefined) await this.#socket.remove()
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort(new P2pfsError('closed', 'the caller has gone')))
    const signal = AbortSignal.any([gone.signal, this.#stopping.signal])
    const send = (line: object): void => void response.write(`${JSON.stringify(line)}\n`)
    let lastProgressMs = 0
    const onProgress = (progress: Progress['progress']): void => {
      const nowMs = performance.now()
      if (nowMs - lastProgressMs < progressIntervalMs && progress.doneBytes < progress.totalBytes) return
      lastProgressMs = nowMs
      send({ progress })
    }
    try {
      const plain = request.method === 'GET' ? await this.#plain?.answer(request.url ?? '') : undefined
      if (plain !== undefined) {
        response.writeHead(plain.status, { 'content-type': plain.type }).end(plain.body)
        return
      }
      response.setHeader('content-type', 'application/x-ndjson')
      // At once: the caller then knows that its request has been taken.
      response.flushHeaders()
      send({ result: await this.#run(request, { signal, onProgress }) })
    } catch (error) {
      const isExpected = isP2pfsError(error)
      const path = request.url ?? ''
      if (isExpected) this.#log.warn('request failed', { error, path })
      else this.#log.error('request failed unexpectedly', { error, path })
      send({ error: { code: isExpected ? error.code : 'unavailable', message: (error as Error).message } })
    }
    response.end()
  }

  async #run(request: IncomingMessage, options: OperationOptions): Promise<object> {
    const name = `${request.method ?? ''} ${request.url ?? ''}`
    const route = routes.get(name)
    if (route === undefined) throw new P2pfsError('invalid', `no such request: ${name}`)
    const text = await readText(request)
    return await route(this.#operations, text === '' ? {} : parseBody(text), options)
  }
}

async function readText(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const piece of request.setEncoding('utf8') as AsyncIterable<string>) {
    text += piece
    if (text.length > maxRequestBytes)
      throw new P2pfsError('invalid', `the request is longer than ${maxRequestBytes} bytes`)
  }
  return text
}
