import { request } from 'node:http'
import type { Outcome, Progress } from '../../node/control/api.ts'
import { P2pfsError } from '../../protocol/errors.ts'

/**
 * Makes one request over a daemon's control socket, as a program that embeds p2pfs does: no process is started.
 *
 * @throws unavailable with the daemon's reason
 */
export async function callControl<T>(
  socket: string,
  path: string,
  body: object,
  { signal }: { signal?: AbortSignal } = {},
): Promise<T> {
  const text = await new Promise<string>((resolve, reject) => {
    const call = request({ socketPath: socket, path, method: 'POST', ...(signal && { signal }) }, (response) => {
      let received = ''
      response.setEncoding('utf8')
      response.on('data', (piece: string) => (received += piece))
      response.on('end', () => resolve(received))
      response.on('error', reject)
    })
    call.on('error', reject)
    call.end(JSON.stringify(body))
  })
  const lines = text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Progress | Outcome<T>)
  const last = lines.at(-1)
  if (last !== undefined && 'result' in last) return last.result
  const reason = last !== undefined && 'error' in last ? last.error.message : 'no answer'
  throw new P2pfsError('unavailable', `${path}: ${reason}`)
}
