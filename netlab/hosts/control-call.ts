import { request as httpRequest } from 'node:http'
import type { Problem } from '../../node/control/api.ts'
import { errorCodes, P2pfsError } from '../../protocol/errors.ts'

/** Method, path and query, as `POST /v1/mounts`. */
export type ControlRequest = `${'GET' | 'POST' | 'DELETE'} /v1/${string}`

/**
 * Makes one request over a daemon's control socket, as a program that embeds p2pfs does: no process is started.
 *
 * @throws the daemon's error; closed if the daemon does not answer
 */
export async function callControl<T>(
  socket: string,
  request: ControlRequest,
  body?: object,
  { signal }: { signal?: AbortSignal } = {},
): Promise<T> {
  const [method = '', path = ''] = request.split(' ')
  const options = { socketPath: socket, path, method, ...(signal && { signal }) }
  const { status, text } = await new Promise<{ status: number; text: string }>((resolve, reject) => {
    const call = httpRequest(options, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (piece: string) => (text += piece))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      response.on('error', reject)
    })
    call.on('error', reject)
    call.end(body === undefined ? undefined : JSON.stringify(body))
  }).catch((cause: unknown) => {
    signal?.throwIfAborted()
    throw new P2pfsError('closed', `${request}: no answer: ${(cause as Error).message}`, { cause })
  })
  if (status === 200) return JSON.parse(text) as T
  const { code, detail } = JSON.parse(text) as Problem
  throw new P2pfsError(errorCodes.find((candidate) => candidate === code) ?? 'invalid', `${request}: ${detail}`, {
    status,
  })
}
