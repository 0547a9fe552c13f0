import { statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { P2pfsError, errorCodes, isP2pfsError, type ErrorCode } from '../../protocol/errors.ts'
import type { Outcome, Problem, Progress } from './api.ts'
import type { Method } from './endpoints.ts'

/** How long a daemon that is being replaced may stay away (ms): it is stopped within 10 s, and starts within a few. */
export const replacementMs = 30_000
/** Pause before a request is tried again (ms). */
const retryPauseMs = 100

/** The daemon has ended before it finished the request. */
export class NoAnswerError extends P2pfsError {}
/** The daemon is stopping and has not begun with the request. */
export class NotBegunError extends P2pfsError {}

export interface HttpCall {
  socket: string
  method: Method
  /** Path and query. */
  target: string
  body: object | undefined
  /** How long to wait for a daemon that is not there (ms). */
  waitMs: number
  signal: AbortSignal | undefined
  onProgress: ((progress: Progress['progress']) => void) | undefined
}

/**
 * One request, in HTTP/1.0 over a plain socket, because loading Node's HTTP client takes longer than a mount.
 * @throws what the daemon answers; NoAnswerError, NotBegunError; unavailable where there is no daemon; the signal's reason
 */
export async function httpCall<Result>(call: HttpCall): Promise<Result> {
  const { method, target, body, signal, onProgress } = call
  const stream = await open(call)
  const json = body === undefined ? '' : JSON.stringify(body)
  const headers = [
    'host: p2pfs',
    // Its head comes when the request is taken, however long the rest is.
    'accept: application/x-ndjson',
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(json)}`,
  ]
  const abort = (): void => void stream.destroy(signal?.reason as Error)
  signal?.addEventListener('abort', abort, { once: true })
  if (signal?.aborted === true) abort()
  // Not ended: a server takes the end of its input for the end of the caller.
  stream.write(`${[`${method} ${target} HTTP/1.0`, ...headers].join('\r\n')}\r\n\r\n${json}`)
  const timer = setTimeout(
    () =>
      stream.destroy(new P2pfsError('unavailable', `no daemon has taken the request within ${replacementMs / 1000} s`)),
    replacementMs,
  )
  let text = ''
  let isStream: boolean | undefined
  stream.setEncoding('utf8')
  let cause: unknown
  try {
    for await (const piece of stream as AsyncIterable<string>) {
      text += piece
      if (isStream === undefined) {
        const end = text.indexOf('\r\n\r\n')
        if (end < 0) continue
        clearTimeout(timer)
        isStream = /^content-type: application\/x-ndjson\r?$/im.test(text.slice(0, end))
        text = text.slice(end + 4)
      }
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = JSON.parse(text.slice(0, end)) as Progress | Outcome<Result> | Problem
        text = text.slice(end + 1)
        if (!isStream) throw errorOf(line as Problem, NotBegunError)
        if ('result' in line) return line.result
        if ('progress' in line) onProgress?.(line.progress)
        else if ('error' in line) throw errorOf(line.error, P2pfsError)
      }
    }
  } catch (error) {
    signal?.throwIfAborted()
    if (isP2pfsError(error)) throw error
    cause = error
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
    stream.destroy()
  }
  throw new NoAnswerError('unavailable', 'the daemon ended before it answered; see its log, then try again', { cause })
}

/** Waits before the next try. @throws the signal's reason */
export async function pause(signal: AbortSignal | undefined): Promise<void> {
  await sleep(retryPauseMs, undefined, { signal }).catch(() => signal?.throwIfAborted())
}

/** @param Stopped what it is called when the daemon is stopping */
function errorOf({ code, detail, isUsage }: Problem, Stopped: typeof P2pfsError): P2pfsError {
  const known = errorCodes.find((candidate) => candidate === code) ?? ('unavailable' satisfies ErrorCode)
  return known === 'closed'
    ? new Stopped(known, detail)
    : new P2pfsError(known, detail, isUsage === true ? { isUsage } : {})
}

async function open({ socket: path, waitMs, signal }: HttpCall): Promise<Socket> {
  const startedMs = performance.now()
  for (;;) {
    signal?.throwIfAborted()
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const stream = connect({ path })
        stream.once('connect', () => {
          stream.off('error', reject)
          resolve(stream)
        })
        stream.once('error', reject)
      })
    } catch (cause) {
      const { code = '' } = cause as NodeJS.ErrnoException
      // EAGAIN: as many requests wait as the socket can hold.
      const patienceMs = code === 'EAGAIN' ? replacementMs : isAway.has(code) ? waitMs : 0
      if (performance.now() - startedMs < patienceMs) {
        await pause(signal)
        continue
      }
      // Linux says of a file what it says of a socket that nobody listens on.
      const isFile = code === 'ECONNREFUSED' && statSync(path, { throwIfNoEntry: false })?.isSocket() === false
      const why = advice[isFile ? 'ENOTSOCK' : code] ?? (cause as Error).message
      throw new P2pfsError('unavailable', `no daemon at ${path}: ${why}`, { cause })
    }
  }
}

/** The socket has no name, or nobody listens: a daemon may be on its way. */
const isAway = new Set(['ENOENT', 'ECONNREFUSED'])

const start = 'start it with p2pfs daemon, or say where its control socket is with --control or P2PFS_CONTROL'
const advice: Record<string, string> = {
  EACCES: 'no permission: run as the user of the daemon, usually root, or as a member of its --control-group',
  ENOENT: start,
  ENOTDIR: start,
  ENOTSOCK: `this is no socket; ${start}`,
  ECONNREFUSED: `the daemon that made this socket has ended; ${start}`,
}
