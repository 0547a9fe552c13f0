import { connect, type Socket } from 'node:net'
import { P2pfsError, errorCodes, type ErrorCode } from '../../protocol/errors.ts'
import type { Outcome, Progress } from './api.ts'

/** While a daemon is being replaced its socket refuses for a moment: how long to try again, milliseconds. */
const restartGraceMs = 5_000

export interface CallOptions {
  socket: string
  onProgress?: (progress: Progress['progress']) => void
}

/**
 * Calls the daemon. HTTP/1.0 over a plain socket, because loading Node's HTTP client takes longer than a mount.
 * @throws unavailable where no daemon answers; what the daemon answers
 */
export async function call<Result>(
  method: 'GET' | 'POST',
  path: string,
  body: unknown,
  options: CallOptions,
): Promise<Result> {
  const stream = await open(options.socket)
  const json = body === undefined ? '' : JSON.stringify(body)
  // Not ended: a server takes the end of its input for the end of the caller.
  stream.write(
    `${method} ${path} HTTP/1.0\r\nhost: p2pfs\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
  )
  let text = ''
  let inBody = false
  stream.setEncoding('utf8')
  const lost = (cause?: unknown): never => {
    throw new P2pfsError('unavailable', 'the daemon ended before it answered; see its log, then try again', { cause })
  }
  try {
    for await (const piece of stream as AsyncIterable<string>) {
      text += piece
      if (!inBody) {
        const end = text.indexOf('\r\n\r\n')
        if (end < 0) continue
        inBody = true
        text = text.slice(end + 4)
      }
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = JSON.parse(text.slice(0, end)) as Progress | Outcome<Result>
        text = text.slice(end + 1)
        if ('progress' in line) options.onProgress?.(line.progress)
        else return outcome(line)
      }
    }
  } catch (error) {
    if (error instanceof P2pfsError) throw error
    lost(error)
  } finally {
    stream.destroy()
  }
  return lost()
}

function outcome<Result>(line: Outcome<Result>): Result {
  if ('result' in line) return line.result
  const code = errorCodes.find((known) => known === line.error.code) ?? ('unavailable' satisfies ErrorCode)
  throw new P2pfsError(code, line.error.message)
}

async function open(path: string): Promise<Socket> {
  const deadline = performance.now() + restartGraceMs
  for (;;) {
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const stream = connect({ path })
        stream.once('connect', () => resolve(stream))
        stream.once('error', reject)
      })
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if (code === 'ECONNREFUSED' && performance.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 50))
        continue
      }
      const advice =
        code === 'EACCES'
          ? 'no permission: run as root'
          : 'start it with p2pfs daemon, or say where its control socket is with --control or P2PFS_CONTROL'
      throw new P2pfsError('unavailable', `no daemon at ${path}: ${advice}`, { cause })
    }
  }
}
