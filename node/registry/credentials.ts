import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { isP2pfsError } from '../../protocol/errors.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import { askCredentialHelper } from './credential-helper.ts'
import type { Credentials, CredentialStore, FindCredentialsOptions } from './credential-store.ts'
import { endpointName } from './endpoint.ts'
import { isObject, parseJsonObject, textEntries, textOrEmpty, type JsonObject } from './json.ts'

export type { Credentials, CredentialStore, FindCredentialsOptions } from './credential-store.ts'

/** The name under which docker login stores Docker Hub. */
const hubKey = 'https://index.docker.io/v1/'

/** A credential helper that hung is not asked again for this long: each read would wait for it (ms). */
const hungMs = 60_000
/** Credential helpers that hung. */
const maxHung = 64

interface DockerCredentialsOptions {
  file?: string
  helperTimeoutMs?: number
  now?: () => number
}

/** The fields of config.json that are read. */
export interface DockerConfig {
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
  readonly #helperTimeoutMs: number | undefined
  /** Files and helpers that were warned of and have not worked since: reads of an image ask often. */
  readonly #failing = new Set<string>()
  readonly #hung: ExpiringMap<string>

  constructor({ log }: { log: Log }, { file, helperTimeoutMs, now }: DockerCredentialsOptions = {}) {
    this.#log = log
    this.#file = file ?? join(process.env['DOCKER_CONFIG'] ?? join(homedir(), '.docker'), 'config.json')
    this.#helperTimeoutMs = helperTimeoutMs
    this.#hung = new ExpiringMap({ maxEntries: maxHung, ...(now === undefined ? {} : { now }) })
  }

  /** Reads the file each time: a login takes effect without a restart. */
  async find(registry: string, { repository, signal }: FindCredentialsOptions): Promise<Credentials | undefined> {
    const { auths, credHelpers, credsStore } = await this.#read()
    const image = { registry, repository }
    for (const key of matchingKeys(credHelpers, image)) {
      const found = await this.#askHelper(credHelpers[key]!, key, signal)
      if (found !== undefined) return found
    }
    const keys = matchingKeys(auths, image)
    for (const key of keys) {
      const found = parseEntry(auths[key])
      if (found !== undefined) return found
    }
    if (credsStore === '') return undefined
    // docker login leaves an empty entry for what it puts into the store, under the same name.
    for (const server of new Set([...keys, registry === 'docker.io' ? hubKey : registry])) {
      const found = await this.#askHelper(credsStore, server, signal)
      if (found !== undefined) return found
    }
    return undefined
  }

  /**
   * By `auths` and `credHelpers`. An empty entry of `auths` counts where there is a `credsStore`: docker login leaves it
   * for what it puts into the store.
   */
  async names(registry: string, { repository }: Pick<FindCredentialsOptions, 'repository'>): Promise<boolean> {
    const { auths, credHelpers, credsStore } = await this.#read()
    const image = { registry, repository }
    const isKept = (key: string): boolean => credsStore !== '' || parseEntry(auths[key]) !== undefined
    return matchingKeys(credHelpers, image).length > 0 || matchingKeys(auths, image).some(isKept)
  }

  async #read(): Promise<DockerConfig> {
    try {
      const config = await readDockerConfig(this.#file)
      this.#failing.delete(this.#file)
      return config
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#warn(this.#file, 'registry credentials cannot be read; trying without', { error, file: this.#file })
      return { auths: {}, credHelpers: {}, credsStore: '' }
    }
  }

  async #askHelper(name: string, server: string, signal: AbortSignal): Promise<Credentials | undefined> {
    const program = `docker-credential-${name}`
    if (this.#hung.has(program)) return undefined
    try {
      const answer = await askCredentialHelper(program, server, { signal, timeoutMs: this.#helperTimeoutMs })
      this.#failing.delete(program)
      const secret = textOrEmpty(answer?.['Secret'])
      const username = textOrEmpty(answer?.['Username'])
      if (secret === '') return undefined
      return username === '<token>'
        ? { username: '', password: '', identityToken: secret }
        : { username, password: secret, identityToken: undefined }
    } catch (error) {
      signal.throwIfAborted()
      if (isP2pfsError(error, 'timeout')) this.#hung.set(program, true, hungMs)
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

/** @throws invalid, which quotes nothing of the file; the codes of the disk */
export async function readDockerConfig(file: string): Promise<DockerConfig> {
  const config = parseJsonObject((await readFile(file, 'utf8')).replace(/^\ufeff/, ''), file)
  return {
    auths: isObject(config['auths']) ? config['auths'] : {},
    credHelpers: textEntries(config['credHelpers']),
    credsStore: textOrEmpty(config['credsStore']),
  }
}

/**
 * The keys of `auths` or `credHelpers` that are for an image, the most specific first. Tools write a registry as HOST,
 * `https://HOST`, `HOST/v1/` or `https://HOST/v2/`, and podman also a part of one, as HOST/NAMESPACE.
 */
function matchingKeys(
  entries: Readonly<Record<string, unknown>>,
  { registry, repository }: { registry: string; repository: string },
): string[] {
  return Object.keys(entries)
    .map((key) => ({ key, ...parseKey(key) }))
    .filter(({ host, namespace }) => host === registry.toLowerCase() && isWithin(repository, namespace))
    .toSorted((a, b) => b.namespace.length - a.namespace.length)
    .map(({ key }) => key)
}

function parseKey(key: string): { host: string; namespace: string } {
  const [host = '', ...path] = key.replace(/^https?:\/\//i, '').split('/')
  const name = host.toLowerCase().replace(/^index\.docker\.io$/, 'docker.io')
  const namespace = path
    .join('/')
    .replace(/^v[12](?:\/|$)/, '')
    .replace(/\/+$/, '')
  return { host: endpointName(name), namespace }
}

const isWithin = (repository: string, namespace: string): boolean =>
  namespace === '' || repository === namespace || repository.startsWith(`${namespace}/`)

/** An entry of `auths`; undefined where it holds no credentials. */
function parseEntry(entry: unknown): Credentials | undefined {
  if (!isObject(entry)) return undefined
  const auth = textOrEmpty(entry['auth'])
  const [username = '', ...rest] = Buffer.from(auth, 'base64').toString().replace(/\0+$/, '').split(':')
  const found = {
    username: auth === '' ? textOrEmpty(entry['username']) : username,
    password: auth === '' ? textOrEmpty(entry['password']) : rest.join(':'),
    identityToken: textOrEmpty(entry['identitytoken']) || undefined,
    registryToken: textOrEmpty(entry['registrytoken']) || undefined,
  }
  const isEmpty = found.username === '' && found.identityToken === undefined && found.registryToken === undefined
  return isEmpty ? undefined : found
}
