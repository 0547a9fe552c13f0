import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { P2pfsError } from '../../protocol/errors.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { TlsSettings } from './tls-settings.ts'

export interface CertificateOptions {
  /** PEM files of authorities, besides those that Node knows, among which are those of NODE_EXTRA_CA_CERTS. */
  authorityFiles: readonly string[]
  /** Docker's directory, with one directory for each host: `HOST` or `HOST:PORT`. */
  hostsDirectory?: string
}

/** docs.docker.com, "Verify repository client with certificates". */
const dockerDirectory = '/etc/docker/certs.d'
/** A certificate that is put into a host's directory takes effect within this time, without a restart (ms). */
const keptMs = 60_000
/** Hosts whose TLS settings are remembered. */
const maxHosts = 256

/** TLS settings; `context` is undefined for Node's own. */
interface HostContext {
  context: SecureContext | undefined
}

/** The TLS settings of each host: which authorities it is trusted by, and which client certificate it is shown. */
export class Certificates {
  readonly #options: Required<CertificateOptions>
  readonly #hosts: ExpiringMap<string, HostContext>
  /**
   * By the certificates that they were made of: hosts with the same ones share a context, and so connections' settings.
   */
  readonly #contexts = new BoundedMap<string, HostContext>({ maxEntries: maxHosts })
  #authorities: Promise<string[]> | undefined

  constructor(
    { now }: { now: () => number },
    { authorityFiles, hostsDirectory = dockerDirectory }: CertificateOptions,
  ) {
    this.#options = { authorityFiles, hostsDirectory }
    this.#hosts = new ExpiringMap({ maxEntries: maxHosts, now })
  }

  /** Reads the authorities. @throws invalid naming the file that cannot be read or holds no certificate */
  async load(): Promise<void> {
    await this.#read()
  }

  /**
   * The same context as long as no certificate changes; undefined for Node's own.
   * @throws invalid for files that are not certificates
   */
  async contextFor(host: string, tls?: TlsSettings): Promise<SecureContext | undefined> {
    const key = tls === undefined ? host : `${host} ${JSON.stringify(tls)}`
    const existing = this.#hosts.get(key)
    if (existing !== undefined) return existing.context
    const authorities = [...(await this.#read()), ...(tls?.authorities ?? [])]
    const docker = await readHostCertificates(join(this.#options.hostsDirectory, host))
    const own = {
      authorities: docker?.authorities ?? [],
      clients: [...(docker?.clients ?? []), ...(tls?.clients ?? [])],
    }
    const source = JSON.stringify([authorities, own])
    const found = this.#contexts.get(source) ?? { context: createContext(host, authorities, own) }
    this.#contexts.set(source, found)
    this.#hosts.set(key, found, keptMs)
    return found.context
  }

  async #read(): Promise<string[]> {
    this.#authorities ??= Promise.all(this.#options.authorityFiles.map(readAuthority))
    try {
      return await this.#authorities
    } catch (error) {
      this.#authorities = undefined
      throw error
    }
  }
}

function createContext(
  host: string,
  authorities: readonly string[],
  { authorities: hostAuthorities, clients }: Omit<TlsSettings, 'verify'>,
): SecureContext | undefined {
  const trusted = [...authorities, ...hostAuthorities]
  if (trusted.length === 0 && clients.length === 0) return undefined
  try {
    return createSecureContext({
      ca: [...getCACertificates('default'), ...trusted],
      ...(clients.length === 0 ? {} : { cert: clients.map(({ cert }) => cert), key: clients.map(({ key }) => key) }),
    })
  } catch (cause) {
    throw new P2pfsError('invalid', `the certificates for ${host} cannot be used: ${(cause as Error).message}`, {
      cause,
      host,
    })
  }
}

async function readAuthority(file: string): Promise<string> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    throw new P2pfsError('invalid', `cannot read ${file}, which --registry-ca names: ${(cause as Error).message}`, {
      cause,
    })
  }
  if (!text.includes('-----BEGIN CERTIFICATE-----'))
    throw new P2pfsError('invalid', `${file}, which --registry-ca names, has no certificate in PEM`)
  return text
}

/**
 * Reads a directory as Docker does: `*.crt`, authorities, and `NAME.cert` with `NAME.key`, the client's own. Undefined
 * where it has none.
 * @throws invalid
 */
export async function readHostCertificates(directory: string): Promise<TlsSettings | undefined> {
  let names: string[]
  try {
    names = (await readdir(directory)).sort()
  } catch {
    return undefined
  }
  const authorities: string[] = []
  const clients: { cert: string; key: string }[] = []
  const read = async (name: string): Promise<string> => await readFile(join(directory, name), 'utf8')
  try {
    for (const name of names) {
      if (name.endsWith('.crt')) authorities.push(await read(name))
      const keyName = name.replace(/\.cert$/, '.key')
      if (keyName === name || !names.includes(keyName)) continue
      clients.push({ cert: await read(name), key: await read(keyName) })
    }
  } catch (cause) {
    throw new P2pfsError('invalid', `cannot read the certificates in ${directory}: ${(cause as Error).message}`, {
      cause,
    })
  }
  return authorities.length + clients.length === 0 ? undefined : { authorities, clients, verify: true }
}
