import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Log } from '../log.ts'

export interface Credentials {
  username: string
  password: string
  /** An OAuth2 refresh token instead of the two. */
  identityToken: string | undefined
}

/** A helper asks a keychain, not a person, milliseconds. */
const helperTimeoutMs = 10_000
/** What docker login calls Docker Hub. */
const hubKey = 'https://index.docker.io/v1/'

interface DockerConfig {
  auths?: Record<string, { auth?: string; username?: string; password?: string; identitytoken?: string }>
  credHelpers?: Record<string, string>
  credsStore?: string
}

/** Credentials as `docker login` leaves them: `config.json` in `$DOCKER_CONFIG` or `~/.docker`, and credential helpers. */
export class DockerCredentials {
  readonly #log: Log
  readonly #file: string

  constructor({ log }: { log: Log }, file = join(process.env['DOCKER_CONFIG'] ?? join(homedir(), '.docker'), 'config.json')) {
    this.#log = log
    this.#file = file
  }

  /** Read each time: a login takes effect without a restart. Undefined: try without. */
  async find(registry: string): Promise<Credentials | undefined> {
    const config = await this.#read()
    const keys = registry === 'docker.io' ? [hubKey, 'docker.io', 'index.docker.io'] : [registry, `https://${registry}`, `http://${registry}`]
    for (const key of keys) {
      const helper = config.credHelpers?.[key]
      const found = helper === undefined ? undefined : await this.#askHelper(helper, key)
      if (found !== undefined) return found
    }
    for (const key of keys) {
      const entry = config.auths?.[key] ?? config.auths?.[`${key}/`]
      const [username, ...rest] = entry?.auth === undefined ? [] : Buffer.from(entry.auth, 'base64').toString().replace(/\0+$/, '').split(':')
      const found = {
        username: username ?? entry?.username ?? '',
        password: entry?.auth === undefined ? (entry?.password ?? '') : rest.join(':'),
        identityToken: entry?.identitytoken || undefined,
      }
      if (found.username !== '' || found.identityToken !== undefined) return found
    }
    const store = config.credsStore
    return store === undefined || store === '' ? undefined : await this.#askHelper(store, keys[0]!)
  }

  async #read(): Promise<DockerConfig> {
    try {
      return JSON.parse(await readFile(this.#file, 'utf8')) as DockerConfig
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#log.warn('registry credentials cannot be read; trying without', { error, file: this.#file })
      return {}
    }
  }

  /** docker-credential-helpers: the server on stdin, `{"Username", "Secret"}` on stdout. */
  async #askHelper(name: string, server: string): Promise<Credentials | undefined> {
    const program = `docker-credential-${name}`
    try {
      const { Username, Secret } = JSON.parse(await runHelper(program, server)) as { Username?: string; Secret?: string }
      if (Secret === undefined || Secret === '') return undefined
      return Username === '<token>' ? { username: '', password: '', identityToken: Secret } : { username: Username ?? '', password: Secret, identityToken: undefined }
    } catch (error) {
      this.#log.warn('credential helper failed; trying without credentials', { error, program, server })
      return undefined
    }
  }
}

async function runHelper(program: string, input: string): Promise<string> {
  const child = spawn(program, ['get'], { stdio: ['pipe', 'pipe', 'ignore'], timeout: helperTimeoutMs })
  return await new Promise((resolve, reject) => {
    let output = ''
    child.once('error', reject)
    child.stdin.once('error', () => undefined)
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
    child.once('close', (status, signal) => {
      if (status === 0) resolve(output)
      else reject(new Error(signal === null ? `exit status ${status ?? 'unknown'}: ${output.trim().slice(0, 200)}` : 'no answer in time'))
    })
    child.stdin.end(`${input}\n`)
  })
}
