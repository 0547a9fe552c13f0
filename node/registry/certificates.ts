import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { P2pfsError } from '../../protocol/errors.ts'

export interface CertificateOptions {
  /** PEM files of authorities, besides those that Node knows; NODE_EXTRA_CA_CERTS is among those. */
  authorityFiles: readonly string[]
  /** A directory per host, `HOST` or `HOST:PORT`: what Docker reads. */
  hostsDirectory?: string
}

/** docs.docker.com, "Verify repository client with certificates". */
const dockerDirectory = '/etc/docker/certs.d'
/** A certificate that is put there takes effect within this, without a restart, milliseconds. */
const keptMs = 60_000
/** Hosts that are remembered. */
const maxHosts = 256

interface HostContext {
  /** What it was made of. */
  source: string
  context: SecureContext | undefined
  readAtMs: number
}

/** Whom to trust, and as whom to come, where TLS is concerned: by host. */
export class Certificates {
  readonly #options: Required<CertificateOptions>
  readonly #now: () => number
  readonly #hosts = new Map<string, HostContext>()
  #authorities: Promise<string[]> | undefined

  constructor(
    { now }: { now: () => number },
    { authorityFiles, hostsDirectory = dockerDirectory }: CertificateOptions,
  ) {
    this.#now = now
    this.#options = { authorityFiles, hostsDirectory }
  }

  /** Reads the authorities. @throws invalid naming the file that cannot be read or has none */
  async load(): Promise<void> {
    await this.#read()
  }

  /** The same one as long as nothing changes; undefined for Node's own. @throws invalid for certificates that are none */
  async contextFor(host: string): Promise<SecureContext | undefined> {
    const known = this.#hosts.get(host)
    if (known !== undefined && this.#now() - known.readAtMs < keptMs) return known.context
    const authorities = await this.#read()
    const own = await readHost(join(this.#options.hostsDirectory, host))
    const source = JSON.stringify([authorities, own])
    // Hosts that are told apart by nothing share one, and so connections' settings.
    const same = [...this.#hosts.values()].find((other) => other.source === source)
    const context = same === undefined ? createContext(host, authorities, own) : same.context
    this.#hosts.delete(host)
    this.#hosts.set(host, { source, context, readAtMs: this.#now() })
    if (this.#hosts.size > maxHosts) this.#hosts.delete([...this.#hosts.keys()][0]!)
    return context
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

interface HostFiles {
  ca: string[]
  cert: string[]
  key: string[]
}

function createContext(
  host: string,
  authorities: readonly string[],
  { ca, cert, key }: HostFiles,
): SecureContext | undefined {
  const trusted = [...authorities, ...ca]
  if (trusted.length === 0 && cert.length === 0) return undefined
  try {
    return createSecureContext({
      ca: [...getCACertificates('default'), ...trusted],
      ...(cert.length === 0 ? {} : { cert, key }),
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

/** `*.crt`: authorities; `NAME.cert` and `NAME.key`: a client's. */
async function readHost(directory: string): Promise<HostFiles> {
  const files: HostFiles = { ca: [], cert: [], key: [] }
  let names: string[]
  try {
    names = (await readdir(directory)).sort()
  } catch {
    return files
  }
  const read = async (name: string): Promise<string> => await readFile(join(directory, name), 'utf8')
  try {
    for (const name of names) {
      if (name.endsWith('.crt')) files.ca.push(await read(name))
      const keyName = name.replace(/\.cert$/, '.key')
      if (keyName === name || !names.includes(keyName)) continue
      files.cert.push(await read(name))
      files.key.push(await read(keyName))
    }
  } catch (cause) {
    throw new P2pfsError('invalid', `cannot read the certificates in ${directory}: ${(cause as Error).message}`, {
      cause,
    })
  }
  return files
}
