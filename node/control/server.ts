import { chmod, mkdir, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { dirname } from 'node:path'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import type {
  ExportRequest,
  ExportResult,
  ImportRequest,
  InspectRequest,
  InspectResult,
  MountRequest,
  MountResult,
  Placed,
  Progress,
  ResetRequest,
  SeedRequest,
  SeedResult,
  Status,
  UmountRequest,
  VerifyRequest,
  VerifyResult,
} from './api.ts'
import {
  parseDirectoryRequest,
  parseExportRequest,
  parseImageRequest,
  parseImportRequest,
  parseMountRequest,
  parseSeedRequest,
} from './requests.ts'

export interface Operations {
  seed: (request: SeedRequest, options: OperationOptions) => Promise<SeedResult>
  mount: (request: MountRequest, options: OperationOptions) => Promise<MountResult>
  umount: (request: UmountRequest, options: OperationOptions) => Promise<Record<string, never>>
  reset: (request: ResetRequest, options: OperationOptions) => Promise<Placed>
  import: (request: ImportRequest, options: OperationOptions) => Promise<SeedResult>
  export: (request: ExportRequest, options: OperationOptions) => Promise<ExportResult>
  inspect: (request: InspectRequest, options: OperationOptions) => Promise<InspectResult>
  verify: (request: VerifyRequest, options: OperationOptions) => Promise<VerifyResult>
  status: () => Promise<Status>
}

export interface OperationOptions {
  /** Aborted when the caller goes away, or the daemon stops. */
  signal: AbortSignal
  onProgress: (progress: Progress['progress']) => void
}

/** A request is a few names: more is a mistake, bytes. */
const maxRequestBytes = 64 * 1024
/** Progress goes out at most this often, milliseconds. */
const progressIntervalMs = 100

/** The control API: HTTP on a unix socket that only the daemon's own user can open. */
export class ControlServer {
  readonly #operations: Operations
  readonly #log: Log
  readonly #socket: string
  readonly #stopping = new AbortController()
  readonly #running = new Set<Promise<void>>()
  #server: Server | undefined

  constructor({ operations, log }: { operations: Operations; log: Log }, { socket }: { socket: string }) {
    this.#operations = operations
    this.#log = log
    this.#socket = socket
  }

  /** The state directory's lock says that no other daemon is using a socket that stands here already. */
  async start(): Promise<void> {
    await mkdir(dirname(this.#socket), { recursive: true, mode: 0o755 })
    await rm(this.#socket, { force: true })
    const server = createServer((request, response) => {
      const running = this.#handle(request, response).finally(() => this.#running.delete(running))
      this.#running.add(running)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#socket, () => {
        server.off('error', reject)
        resolve()
      })
    })
    await chmod(this.#socket, 0o600)
    this.#server = server
  }

  /** Aborts what is running and waits for it. */
  async stop(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    this.#stopping.abort(new P2pfsError('closed', 'the daemon is stopping; try again when it is back'))
    await Promise.all(this.#running)
    server.closeAllConnections()
    await closed
    await rm(this.#socket, { force: true })
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort(new P2pfsError('closed', 'the caller has gone')))
    const signal = AbortSignal.any([gone.signal, this.#stopping.signal])
    const send = (line: object): void => void response.write(`${JSON.stringify(line)}\n`)
    let progressAt = 0
    const onProgress = (progress: Progress['progress']): void => {
      const now = performance.now()
      if (now - progressAt < progressIntervalMs && progress.doneBytes < progress.totalBytes) return
      progressAt = now
      send({ progress })
    }
    try {
      response.setHeader('content-type', 'application/x-ndjson')
      send({ result: await this.#run(request, { signal, onProgress }) })
    } catch (error) {
      const known = isP2pfsError(error)
      const path = request.url ?? ''
      if (known) this.#log.warn('request failed', { error, path })
      else this.#log.error('request failed unexpectedly', { error, path })
      send({ error: { code: known ? error.code : 'unavailable', message: (error as Error).message } })
    }
    response.end()
  }

  async #run(request: IncomingMessage, options: OperationOptions): Promise<unknown> {
    const does = this.#operations
    const route = `${request.method ?? ''} ${request.url ?? ''}`
    if (route === 'GET /status') return await does.status()
    const body = await readBody(request)
    switch (route) {
      case 'POST /seed':
        return await does.seed(parseSeedRequest(body), options)
      case 'POST /mount':
        return await does.mount(parseMountRequest(body), options)
      case 'POST /umount':
        return await does.umount(parseDirectoryRequest(body), options)
      case 'POST /reset':
        return await does.reset(parseDirectoryRequest(body), options)
      case 'POST /import':
        return await does.import(parseImportRequest(body), options)
      case 'POST /export':
        return await does.export(parseExportRequest(body), options)
      case 'POST /verify':
        return await does.verify(parseImageRequest(body), options)
      case 'POST /inspect':
        return await does.inspect(parseImageRequest(body), options)
      default:
        throw new P2pfsError('invalid', `no such request: ${route}`)
    }
  }
}

async function readBody(request: IncomingMessage): Promise<Record<string, unknown>> {
  let text = ''
  for await (const piece of request.setEncoding('utf8') as AsyncIterable<string>) {
    text += piece
    if (text.length > maxRequestBytes) throw new P2pfsError('invalid', 'request is too long')
  }
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch (cause) {
    throw new P2pfsError('invalid', 'request is not JSON', { cause })
  }
  if (typeof body !== 'object' || body === null) throw new P2pfsError('invalid', 'request is not a JSON object')
  return body as Record<string, unknown>
}
