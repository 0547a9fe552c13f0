import { spawn, type ChildProcess } from 'node:child_process'
import { P2pfsError } from '../../protocol/errors.ts'
import { parseJsonObject, type JsonObject } from './json.ts'

/** A helper asks a keychain, not a person (ms). */
const defaultTimeoutMs = 10_000
/** A helper that has ended may have started something that holds its output open (ms). */
const drainMs = 500
/** An answer has a name and a token (characters). */
const maxOutput = 64 * 1024
/** docker-credential-helpers, credentials/error.go. */
const noCredentials = /credentials not found/

export interface HelperOptions {
  signal: AbortSignal
  timeoutMs?: number | undefined
}

/**
 * Asks `docker-credential-NAME`: the server on stdin, `{"Username", "Secret"}` on stdout (docker-credential-helpers).
 * @returns undefined where the helper says that it has no credentials
 * @throws timeout; unavailable for a helper that fails; invalid for an answer that is not JSON, or too long
 */
export async function askCredentialHelper(
  program: string,
  server: string,
  options: HelperOptions,
): Promise<JsonObject | undefined> {
  const output = await runHelper(program, server, options)
  return output === undefined ? undefined : parseJsonObject(output, `the answer of ${program}`)
}

async function runHelper(
  program: string,
  input: string,
  { signal, timeoutMs = defaultTimeoutMs }: HelperOptions,
): Promise<string | undefined> {
  signal.throwIfAborted()
  // A process group of its own: many helpers are scripts around a program, and both must end.
  const child = spawn(program, ['get'], { stdio: ['pipe', 'pipe', 'ignore'], detached: true })
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  let output = ''
  const finish = (status: number | null): void => {
    if (status === 0) resolve(output)
    else if (noCredentials.test(output)) resolve(undefined)
    else reject(new P2pfsError('unavailable', `${program} ends with status ${status ?? 'unknown'}`))
  }
  const onTimeout = (): void =>
    reject(new P2pfsError('timeout', `${program} does not answer within ${timeoutMs / 1000} s`))
  const onAbort = (): void => reject(signal.reason as Error)
  const timers = [setTimeout(onTimeout, timeoutMs)]
  signal.addEventListener('abort', onAbort, { once: true })
  child.once('error', reject)
  child.once('close', finish)
  child.once('exit', (status) => timers.push(setTimeout(finish, drainMs, status)))
  child.stdin.once('error', () => undefined)
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    if (output.length > maxOutput)
      reject(new P2pfsError('invalid', `${program} answers with more than ${maxOutput} characters`))
  })
  child.stdin.end(`${input}\n`)
  try {
    return await promise
  } catch (error) {
    endGroup(child)
    throw error
  } finally {
    timers.forEach(clearTimeout)
    signal.removeEventListener('abort', onAbort)
    child.stdout.destroy()
  }
}

function endGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch {
    // The group has ended.
  }
}
