import { statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { P2pfsError, errorCodes, isP2pfsError, type ErrorCode } from '../../protocol/errors.ts'
import type { Outcome, Progress } from './api.ts'

/** How long a daemon that is being replaced may stay away (ms): it is stopped within 10 s, and starts within a few. */
const replacementMs = 30_000
/** Pause before a request is sent again (ms). */
const retryPauseMs = 100

/**
 * Requests that may be carried out twice: they change nothing, or come to the same result. A daemon that stops undoes
 * a mount that it has not finished. Not `reset`, which may find a half of its work done, and not `import`, whose
 * source may be gone.
 */
const repeatable: readonly string[] = [
  '/status',
  '/seed',
  '/seeds',
  '/seeds/cancel',
  '/mount',
  '/umount',
  '/export',
  '/inspect',
  '/verify',
]

export interface CallOptions {
  socket: string
  onProgress?: (progress: Progress['progress']) => void
}

/**
 * Calls the daemon. While a daemon is being replaced, connections wait in its socket; a request that it did not finish
 * is sent again to the next daemon, where that is safe.
 * @throws unavailable if no daemon answers; what the daemon answers
 */
export async function call<Result>(
  method: 'GET' | 'POST',
  path: string,
  body: unknown,
  options: CallOptions,
): Promise<Result> {
  let retryUntilMs: number | undefined
  for (;;) {
    try {
      return await callOnce<Result>(method, path, body, options)
    } catch (error) {
      const isRetry = retryUntilMs !== undefined
      // The daemon that was asked first has ended the mount, but could not say so.
      if (isRetry && path === '/umount' && isP2pfsError(error, 'missing')) return {} as Result
      if (isRetry && path === '/mount' && isP2pfsError(error, 'conflict'))
        throw new P2pfsError(
          'conflict',
          `${error.message} (the daemon was replaced meanwhile: p2pfs status shows whether this mount was made)`,
          { cause: error },
        )
      retryUntilMs ??= performance.now() + replacementMs
      if (!isUnfinished(error) || !repeatable.includes(path) || performance.now() > retryUntilMs) throw error
      await sleep(retryPauseMs)
    }
  }
}

/** The daemon has ended before it finished the request. */
class NoAnswerError extends P2pfsError {}

const isUnfinished = (error: unknown): boolean => error instanceof NoAnswerError || isP2pfsError(error, 'closed')

/** HTTP/1.0 over a plain socket, because loading Node's HTTP client takes longer than a mount. */
async function callOnce<Result>(
  method: 'GET' | 'POST',
  path: string,
  body: unknown,
  { socket, onProgress }: CallOptions,
): Promise<Result> {
  const stream = await open(socket)
  const json = body === undefined ? '' : JSON.stringify(body)
  const headers = ['host: p2pfs', 'content-type: application/json', `content-length: ${Buffer.byteLength(json)}`]
  // Not ended: a server takes the end of its input for the end of the caller.
  stream.write(`${[`${method} ${path} HTTP/1.0`, ...headers].join('\r\n')}\r\n\r\n${json}`)
  const timer = setTimeout(
    () =>
      stream.destroy(new P2pfsError('unavailable', `no daemon has taken the request within ${replacementMs / 1000} s`)),
    replacementMs,
  )
  let text = ''
  let inBody = false
  stream.setEncoding('utf8')
  let cause: unknown
  try {
    for await (const piece of stream as AsyncIterable<string>) {
      text += piece
      if (!inBody) {
        const end = text.indexOf('\r\n\r\n')
        if (end < 0) continue
        clearTimeout(timer)
        inBody = true
        text = text.slice(end + 4)
      }
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = JSON.parse(text.slice(0, end)) as Progress | Outcome<Result>
        text = text.slice(end + 1)
        if ('progress' in line) onProgress?.(line.progress)
        else return resultOf(line)
      }
    }
  } catch (error) {
    if (isP2pfsError(error)) throw error
    cause = error
  } finally {
    clearTimeout(timer)
    stream.destroy()
  }
  throw new NoAnswerError('unavailable', 'the daemon ended before it answered; see its log, then try again', { cause })
}

function resultOf<Result>(line: Outcome<Result>): Result {
  if ('result' in line) return line.result
  const code = errorCodes.find((candidate) => candidate === line.error.code) ?? ('unavailable' satisfies ErrorCode)
  throw new P2pfsError(code, line.error.message, line.error.isUsage === true ? { isUsage: true } : {})
}

async function open(path: string): Promise<Socket> {
  const fullUntilMs = performance.now() + replacementMs
  for (;;) {
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const stream = connect({ path })
        stream.once('connect', () => resolve(stream))
        stream.once('error', reject)
      })
    } catch (cause) {
      const { code = '' } = cause as NodeJS.ErrnoException
      // As many requests wait as the socket can hold.
      if (code === 'EAGAIN' && performance.now() < fullUntilMs) {
        await sleep(retryPauseMs)
        continue
      }
      // Linux says of a file what it says of a socket that nobody listens on.
      const isFile = code === 'ECONNREFUSED' && statSync(path, { throwIfNoEntry: false })?.isSocket() === false
      const why = advice[isFile ? 'ENOTSOCK' : code] ?? (cause as Error).message
      throw new P2pfsError('unavailable', `no daemon at ${path}: ${why}`, { cause })
    }
  }
}

const start = 'start it with p2pfs daemon, or say where its control socket is with --control or P2PFS_CONTROL'
const advice: Record<string, string> = {
  EACCES: 'no permission: run as the user of the daemon, usually root',
  ENOENT: start,
  ENOTDIR: start,
  ENOTSOCK: `this is no socket; ${start}`,
  ECONNREFUSED: `the daemon that made this socket has ended; ${start}`,
}
