import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'

export interface Credentials {
  username: string
  password: string
  /** An OAuth2 refresh token instead of the two. */
  identityToken: string | undefined
}

/** A helper asks a keychain, not a person, milliseconds. */
const helperTimeoutMs = 10_000
/** Characters; an answer has a name and a token. */
const maxHelperOutput = 64 * 1024
/** docker-credential-helpers, credentials/error.go. */
const noCredentials = /credentials not found/
/** What docker login calls Docker Hub. */
const hubKey = 'https://index.docker.io/v1/'

interface DockerConfig {
  auths?: Record<
    string,
    { auth?: unknown; username?: unknown; password?: unknown; identitytoken?: unknown } | undefined
  >
  credHelpers?: Record<string, string>
  credsStore?: string
}

/** Credentials as `docker login` leaves them: `config.json` in `$DOCKER_CONFIG` or `~/.docker`, and credential helpers. */
export class DockerCredentials {
  readonly #log: Log
  readonly #file: string
  /** What has been warned of, until it works again: reads of an image ask often. */
  readonly #failing = new Set<string>()

  constructor(
    { log }: { log: Log },
    file = join(process.env['DOCKER_CONFIG'] ?? join(homedir(), '.docker'), 'config.json'),
  ) {
    this.#log = log
    this.#file = file
  }

  /** Read each time: a login takes effect without a restart. Undefined: try without. */
  async find(registry: string): Promise<Credentials | undefined> {
    const config = await this.#read()
    const keys =
      registry === 'docker.io'
        ? [hubKey, 'docker.io', 'index.docker.io']
        : [registry, `https://${registry}`, `http://${registry}`]
    for (const key of keys) {
      const helper = config.credHelpers?.[key]
      const found = helper === undefined ? undefined : await this.#askHelper(helper, key)
      if (found !== undefined) return found
    }
    for (const key of keys) {
      const entry = config.auths?.[key] ?? config.auths?.[`${key}/`]
      const auth = textOf(entry?.auth)
      const [username = '', ...rest] = Buffer.from(auth, 'base64').toString().replace(/\0+$/, '').split(':')
      const found = {
        username: auth === '' ? textOf(entry?.username) : username,
        password: auth === '' ? textOf(entry?.password) : rest.join(':'),
        identityToken: textOf(entry?.identitytoken) || undefined,
      }
      if (found.username !== '' || found.identityToken !== undefined) return found
    }
    const store = config.credsStore
    return store === undefined || store === '' ? undefined : await this.#askHelper(store, keys[0]!)
  }

  async #read(): Promise<DockerConfig> {
    try {
      const config = parseJson(await readFile(this.#file, 'utf8'), this.#file) as DockerConfig
      this.#failing.delete(this.#file)
      return config
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#warn(this.#file, 'registry credentials cannot be read; trying without', { error, file: this.#file })
      return {}
    }
  }

  /** docker-credential-helpers: the server on stdin, `{"Username", "Secret"}` on stdout. */
  async #askHelper(name: string, server: string): Promise<Credentials | undefined> {
    const program = `docker-credential-${name}`
    try {
      const output = await runHelper(program, server)
      const { Username, Secret } = (output === undefined ? {} : parseJson(output, `the answer of ${program}`)) as {
        Username?: unknown
        Secret?: unknown
      }
      this.#failing.delete(program)
      if (typeof Secret !== 'string' || Secret === '') return undefined
      return Username === '<token>'
        ? { username: '', password: '', identityToken: Secret }
        : { username: textOf(Username), password: Secret, identityToken: undefined }
    } catch (error) {
      this.#warn(program, 'credential helper failed; trying without credentials', { error, program, server })
      return undefined
    }
  }

  #warn(what: string, message: string, fields: Record<string, unknown>): void {
    if (this.#failing.has(what)) return
    this.#failing.add(what)
    this.#log.warn(message, fields)
  }
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

/** JSON.parse quotes what it cannot read, and here that is a password. */
function parseJson(text: string, what: string): object {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new P2pfsError('invalid', `${what} is not JSON`)
  }
  if (typeof value !== 'object' || value === null) throw new P2pfsError('invalid', `${what} is not an object of JSON`)
  return value
}

/** @returns undefined where the helper says that it has none */
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
      if (status === 0) resolve(output)
      else if (noCredentials.test(output)) resolve(undefined)
      else
        reject(
          new P2pfsError(
            'unavailable',
            signal === null
              ? `${program} ends with status ${status ?? 'unknown'}`
              : `${program} does not answer in time`,
          ),
        )
    })
    child.stdin.end(`${input}\n`)
  })
}
