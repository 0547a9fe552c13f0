import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Log } from '../base/log.ts'
import { askCredentialHelper } from './credential-helper.ts'
import { isObject, parseJsonObject, textEntries, textOrEmpty, type JsonObject } from './json.ts'

export interface Credentials {
  username: string
  password: string
  /** An OAuth2 refresh token in place of name and password. */
  identityToken: string | undefined
}

export interface CredentialStore {
  /** The credentials for a registry; undefined where there are none: it is asked without. */
  find: (registry: string) => Promise<Credentials | undefined>
}

/** The name under which docker login stores Docker Hub. */
const hubKey = 'https://index.docker.io/v1/'

/** What is read of config.json. */
interface DockerConfig {
  auths: JsonObject
  credHelpers: Record<string, string>
  credsStore: string
}

/**
 * Credentials as `docker login` leaves them: `config.json` in `$DOCKER_CONFIG` or `~/.docker`, and credential helpers.
 */
export class DockerCredentials implements CredentialStore {
  readonly #log: Log
  readonly #file: string
  /** Files and helpers that were warned of and have not worked since: reads of an image ask often. */
  readonly #failing = new Set<string>()

  constructor(
    { log }: { log: Log },
    file = join(process.env['DOCKER_CONFIG'] ?? join(homedir(), '.docker'), 'config.json'),
  ) {
    this.#log = log
    this.#file = file
  }

  /** Reads the file each time: a login takes effect without a restart. */
  async find(registry: string): Promise<Credentials | undefined> {
    const { auths, credHelpers, credsStore } = await this.#read()
    const keys =
      registry === 'docker.io'
        ? [hubKey, 'docker.io', 'index.docker.io']
        : [registry, `https://${registry}`, `http://${registry}`]
    for (const key of keys) {
      const helper = credHelpers[key]
      const found = helper === undefined ? undefined : await this.#askHelper(helper, key)
      if (found !== undefined) return found
    }
    for (const key of keys) {
      const found = parseEntry(auths[key] ?? auths[`${key}/`])
      if (found !== undefined) return found
    }
    return credsStore === '' ? undefined : await this.#askHelper(credsStore, keys[0]!)
  }

  async #read(): Promise<DockerConfig> {
    try {
      const config = parseJsonObject(await readFile(this.#file, 'utf8'), this.#file)
      this.#failing.delete(this.#file)
      return {
        auths: isObject(config['auths']) ? config['auths'] : {},
        credHelpers: textEntries(config['credHelpers']),
        credsStore: textOrEmpty(config['credsStore']),
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#warn(this.#file, 'registry credentials cannot be read; trying without', { error, file: this.#file })
      return { auths: {}, credHelpers: {}, credsStore: '' }
    }
  }

  async #askHelper(name: string, server: string): Promise<Credentials | undefined> {
    const program = `docker-credential-${name}`
    try {
      const answer = await askCredentialHelper(program, server)
      this.#failing.delete(program)
      const secret = textOrEmpty(answer?.['Secret'])
      const username = textOrEmpty(answer?.['Username'])
      if (secret === '') return undefined
      return username === '<token>'
        ? { username: '', password: '', identityToken: secret }
        : { username, password: secret, identityToken: undefined }
    } catch (error) {
      this.#warn(program, 'credential helper failed; trying without credentials', { error, program, server })
      return undefined
    }
  }

  #warn(source: string, message: string, fields: Record<string, unknown>): void {
    if (this.#failing.has(source)) return
    this.#failing.add(source)
    this.#log.warn(message, fields)
  }
}

/** An entry of `auths`; undefined where it holds no credentials. */
function parseEntry(entry: unknown): Credentials | undefined {
  if (!isObject(entry)) return undefined
  const auth = textOrEmpty(entry['auth'])
  const [username = '', ...rest] = Buffer.from(auth, 'base64').toString().replace(/\0+$/, '').split(':')
  const found = {
    username: auth === '' ? textOrEmpty(entry['username']) : username,
    password: auth === '' ? textOrEmpty(entry['password']) : rest.join(':'),
    identityToken: textOrEmpty(entry['identitytoken']) || undefined,
  }
  return found.username !== '' || found.identityToken !== undefined ? found : undefined
}
