import { spawn } from 'node:child_process'
import { P2pfsError } from '../../protocol/errors.ts'
import { parseJsonObject, type JsonObject } from './json.ts'

/** A helper asks a keychain, not a person (ms). */
const helperTimeoutMs = 10_000
/** An answer has a name and a token (characters). */
const maxHelperOutput = 64 * 1024
/** docker-credential-helpers, credentials/error.go. */
const noCredentials = /credentials not found/

/**
 * Asks `docker-credential-NAME`: the server on stdin, `{"Username", "Secret"}` on stdout (docker-credential-helpers).
 * @returns undefined where the helper says that it has no credentials
 * @throws unavailable for a helper that fails; invalid for an answer that is not JSON
 */
export async function askCredentialHelper(program: string, server: string): Promise<JsonObject | undefined> {
  const output = await runHelper(program, server)
  return output === undefined ? undefined : parseJsonObject(output, `the answer of ${program}`)
}

async function runHelper(program: string, input: string): Promise<string | undefined> {
  const child = spawn(program, ['get'], { stdio: ['pipe', 'pipe', 'ignore'], timeout: helperTimeoutMs })
  return await new Promise((resolve, reject) => {
    let output = ''
    child.once('error', reject)
    child.stdin.once('error', () => undefined)
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (output.length > maxHelperOutput) child.kill('SIGKILL')
    })
    child.once('close', (status, signal) => {
      if (status === 0) return resolve(output)
      if (noCredentials.test(output)) return resolve(undefined)
      const why = signal === null ? `ends with status ${status ?? 'unknown'}` : 'does not answer in time'
      reject(new P2pfsError('unavailable', `${program} ${why}`))
    })
    child.stdin.end(`${input}\n`)
  })
}
