import { P2pfsError, isP2pfsError } from '../../protocol/errors.ts'
import type { EmptyRequest, Progress } from './api.ts'
import { endpoints } from './endpoints.ts'
import { httpCall, NoAnswerError, NotBegunError, pause, replacementMs } from './http-call.ts'
import type { OperationName, Operations, RequestOf, ResultOf } from './operations.ts'

export { isP2pfsError, P2pfsError, type ErrorCode } from '../../protocol/errors.ts'
export type * from './api.ts'
export type { OperationName, RequestOf, ResultOf } from './operations.ts'

/** The daemon's control socket, unless `--control` names another. */
export const defaultSocket = '/run/p2pfs/p2pfs.sock'

export interface RequestOptions {
  /** Ends the request; what it was doing is undone. */
  signal?: AbortSignal
  onProgress?: (progress: Progress['progress']) => void
}

export interface ClientOptions {
  /** Path of the control socket. Default: {@link defaultSocket}. */
  socket?: string
  /** How long to wait for a daemon where there is none (ms), as while its service is restarted. Default: 30 s. */
  waitMs?: number
}

/** All that a daemon can be asked for. Each method throws a {@link P2pfsError}, or the reason of its signal. */
export type Client = {
  [Name in keyof Operations]: EmptyRequest extends RequestOf<Name>
    ? (request?: RequestOf<Name>, options?: RequestOptions) => Promise<ResultOf<Name>>
    : (request: RequestOf<Name>, options?: RequestOptions) => Promise<ResultOf<Name>>
}

/**
 * Makes a client of the daemon of this host. It keeps no connection open. Its requests wait while a daemon is being
 * replaced; one that the daemon did not finish is sent again to the next, where that is safe.
 */
export function createClient({ socket = defaultSocket, waitMs = replacementMs }: ClientOptions = {}): Client {
  const names = Object.keys(endpoints) as OperationName[]
  return Object.fromEntries(
    names.map((name) => [
      name,
      async (request: object = {}, options: RequestOptions = {}) =>
        await call(name, request as never, { ...options, socket, waitMs }),
    ]),
  ) as unknown as Client
}

export interface CallOptions extends RequestOptions {
  socket: string
  /** How long to wait for a daemon where there is none (ms). Default: 0. */
  waitMs?: number
}

/**
 * Asks the daemon for one operation. While a daemon is being replaced, connections wait in its socket; a request that it
 * did not finish is sent again to the next daemon, where that is safe.
 * @throws unavailable if no daemon answers; what the daemon answers; the signal's reason
 */
export async function call<Name extends OperationName>(
  name: Name,
  request: RequestOf<Name>,
  { socket, waitMs = 0, signal, onProgress }: CallOptions,
): Promise<ResultOf<Name>> {
  const [, , repetition] = endpoints[name]
  const http = { socket, waitMs, signal, onProgress, ...httpRequest(name, { ...request }) }
  let retryUntilMs: number | undefined
  /** Whether a daemon may have done it already. */
  let wasBegun = false
  for (;;) {
    try {
      return await httpCall<ResultOf<Name>>(http)
    } catch (error) {
      // The daemon that was asked first has ended the mount, but could not say so.
      if (wasBegun && name === 'umount' && isP2pfsError(error, 'missing')) return {} as ResultOf<Name>
      if (wasBegun && name === 'mount' && isP2pfsError(error, 'conflict'))
        throw new P2pfsError(
          'conflict',
          `${error.message} (the daemon was replaced meanwhile: p2pfs status shows whether this mount was made)`,
          { cause: error },
        )
      const isUnbegun = error instanceof NotBegunError
      const isUnfinished = error instanceof NoAnswerError || isP2pfsError(error, 'closed')
      if (!isUnbegun && !(isUnfinished && repetition === 'repeatable')) throw error
      retryUntilMs ??= performance.now() + replacementMs
      if (performance.now() > retryUntilMs) throw error
      wasBegun ||= !isUnbegun
      await pause(signal)
    }
  }
}

/** Fields that the path names go there, those of GET and DELETE to the query, those of POST to the body. */
function httpRequest(
  name: OperationName,
  fields: Record<string, unknown>,
): Pick<Parameters<typeof httpCall>[0], 'method' | 'target' | 'body'> {
  const [method, template] = endpoints[name]
  const rest = new Map(Object.entries(fields).filter(([, value]) => value !== undefined))
  const path = template.replace(/\{(\w+)\}/g, (_, key: string) => {
    const value = rest.get(key)
    rest.delete(key)
    return encodeURIComponent(String(value))
  })
  if (method === 'POST') return { method, target: path, body: Object.fromEntries(rest) }
  const query = new URLSearchParams(
    [...rest].map(([key, value]) => [key, String(value)] as [string, string]),
  ).toString()
  return { method, target: query === '' ? path : `${path}?${query}`, body: undefined }
}
