import { execFile } from 'node:child_process'
import { open } from 'node:fs/promises'
import { request } from 'node:http'
import { P2pfsError } from '../../protocol/errors.ts'

/** So much of a log is taken, its end (bytes). */
const maxLogBytes = 8 * 1024 * 1024
/** How long the journal or the daemon may take (ms). */
const timeoutMs = 10_000

/** The end of a log file. @throws missing */
export async function endOfFile(path: string): Promise<string> {
  try {
    await using file = await open(path)
    const { size } = await file.stat()
    const start = Math.max(0, size - maxLogBytes)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(Math.min(size, maxLogBytes)), 0, undefined, start)
    const text = buffer.toString('utf8', 0, bytesRead)
    return start === 0 ? text : text.slice(text.indexOf('\n') + 1)
  } catch (cause) {
    throw new P2pfsError('missing', `cannot read the log ${path}: ${(cause as Error).message}`, { cause })
  }
}

/** The end of the journal of the unit. @returns undefined where there is none */
export async function journal(): Promise<string | undefined> {
  const argv = ['--unit', 'p2pfs', '--output', 'cat', '--lines', '20000', '--no-pager', '--quiet']
  return await new Promise((resolve) => {
    execFile('journalctl', argv, { encoding: 'utf8', maxBuffer: maxLogBytes, timeout: timeoutMs }, (error, stdout) =>
      resolve(error === null && stdout !== '' ? stdout : undefined),
    )
  })
}

/** The daemon's metrics, over the control socket. @returns undefined where it has none */
export async function metrics(socketPath: string): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const sent = request({ socketPath, path: '/metrics', timeout: timeoutMs }, (response) => {
      let text = ''
      response
        .setEncoding('utf8')
        .on('data', (piece: string) => {
          if (text.length < maxLogBytes) text += piece
        })
        .on('end', () => resolve(response.statusCode === 200 ? text : undefined))
        .on('error', () => resolve(undefined))
    })
    sent.on('error', () => resolve(undefined)).on('timeout', () => sent.destroy())
    sent.end()
  })
}
