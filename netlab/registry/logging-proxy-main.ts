/**
 * A program: a proxy in plain HTTP before a registry. It appends a line of JSON to a file for each request that it has
 * answered.
 */
import { appendFileSync } from 'node:fs'
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'

/** One request; times are milliseconds since the epoch. */
export interface TimedRequest {
  startedAt: number
  /** The time when the registry had answered, and the time when the kernel had taken all of the answer. */
  answeredAt: number
  endedAt: number
  /** Address of the host that asked. */
  from: string
  method: string
  path: string
  range?: string
  status: number
  bytes: number
}

const now = (): number => performance.timeOrigin + performance.now()

async function forward(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  upstream: { host: string; port: number },
  logPath: string,
): Promise<void> {
  const startedAt = now()
  const { method = 'GET', url: path = '/', headers } = incoming
  // The header Host stays: the registry makes locations from it.
  const call = request({ ...upstream, method, path, headers, agent: false })
  const answered = new Promise<IncomingMessage>((resolve, reject) =>
    call.once('response', resolve).once('error', reject),
  )
  const [answer] = await Promise.all([answered, pipeline(incoming, call)])
  const answeredAt = now()
  let bytes = 0
  answer.on('data', (piece: Buffer) => (bytes += piece.length))
  outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
  await pipeline(answer, outgoing).catch(() => undefined)
  const { range } = headers
  const entry: TimedRequest = {
    startedAt,
    answeredAt,
    endedAt: now(),
    from: incoming.socket.remoteAddress ?? '',
    method,
    path,
    ...(range !== undefined && { range }),
    status: answer.statusCode ?? 0,
    bytes,
  }
  appendFileSync(logPath, `${JSON.stringify(entry)}\n`)
}

const [host = '', port = '', upstreamPort = '', logPath = ''] = process.argv.slice(2)
const upstream = { host, port: Number(upstreamPort) }
createServer((incoming, outgoing) => {
  // Only the connection can fail here, on either side.
  void forward(incoming, outgoing, upstream, logPath).catch(() => void outgoing.destroy())
}).listen(Number(port), host, () => process.stdout.write('listening\n'))
