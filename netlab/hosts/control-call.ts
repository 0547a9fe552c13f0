import { request } from 'node:http'
import type { Outcome, Progress } from '../../node/control/api.ts'
import { errorCodes, P2pfsError } from '../../protocol/errors.ts'

/**
 * Makes one request over a daemon's control socket, as a program that embeds p2pfs does: no process is started.
 *
 * @param body undefined for a GET
 * @throws the daemon's error; closed if the daemon does not answer
 */
export async function callControl<T>(
  socket: string,
  path: string,
  body: object | undefined,
  { signal }: { signal?: AbortSignal } = {},
): Promise<T> {
  const options = { socketPath: socket, path, method: body === undefined ? 'GET' : 'POST', ...(signal && { signal }) }
  const text = await new Promise<string>((resolve, reject) => {
    const call = request(options, (response) => {
      let received = ''
      response.setEncoding('utf8')
      response.on('data', (piece: string) => (received += piece))
      response.on('end', () => resolve(received))
      response.on('error', reject)
    })
    call.on('error', reject)
    call.end(body === undefined ? undefined : JSON.stringify(body))
  }).catch((cause: unknown) => {
    signal?.throwIfAborted()
    throw new P2pfsError('closed', `${path}: no answer: ${(cause as Error).message}`, { cause })
  })
  const last = text.split('\n').findLast((line) => line !== '')
  const outcome = last === undefined ? {} : (JSON.parse(last) as Partial<Progress> | Outcome<T>)
  if ('result' in outcome) return outcome.result
  if (!('error' in outcome)) throw new P2pfsError('closed', `${path}: the answer is not whole`)
  const { code, message } = outcome.error
  throw new P2pfsError(errorCodes.find((candidate) => candidate === code) ?? 'invalid', `${path}: ${message}`)
}
