import { readFile } from 'node:fs/promises'
import { posix, resolve } from 'node:path'
import { parse } from 'smol-toml'
import { P2pfsError } from '../../protocol/errors.ts'
import { readHostCertificates } from './certificates.ts'
import { endpointName, hubHost, namespaceOf, type Capability, type Endpoint } from './endpoint.ts'
import { asObject, textEntries, type JsonObject } from './json.ts'
import type { TlsSettings } from './tls-settings.ts'

/** The servers of a registry by its hosts.toml: mirrors in the order of the file, then the server itself. */
export interface RegistryHosts {
  mirrors: Endpoint[]
  /** Undefined where the file names none: it is the registry itself. */
  server: Endpoint | undefined
  /** For the registry itself. */
  tls: TlsSettings | undefined
}

const capabilities: ReadonlySet<Capability> = new Set(['pull', 'resolve'])

/**
 * Reads `hosts.toml` of a directory as containerd does (docs/hosts.md): server, and for each host capabilities, ca,
 * client, skip_verify, header and override_path. Without the file, certificates of the directory are for the registry
 * itself. Pushes and referrers are the business of the server alone.
 * @throws invalid naming the file
 */
export async function readRegistryHosts(directory: string, registry: string): Promise<RegistryHosts> {
  const file = resolve(directory, 'hosts.toml')
  let text = ''
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT')
      throw new P2pfsError('invalid', `cannot read ${file}: ${(cause as Error).message}`, { cause })
  }
  if (text.trim() === '') return { mirrors: [], server: undefined, tls: await readHostCertificates(directory) }
  try {
    const root: JsonObject = parse(text)
    const hosts = Object.entries(root['host'] === undefined ? {} : asObject(root['host'], 'host'))
    const mirrors = await Promise.all(
      hosts.map(async ([url, host]) => await parseHost(url, asObject(host, `host.${url}`), directory, registry, true)),
    )
    const server =
      typeof root['server'] === 'string' && root['server'] !== ''
        ? await parseHost(root['server'], root, directory, registry, false)
        : undefined
    return { mirrors, server, tls: await parseTls(root, directory) }
  } catch (cause) {
    throw new P2pfsError('invalid', `${file}: ${(cause as Error).message.split('\n')[0]}`, { cause })
  }
}

async function parseHost(
  text: string,
  host: JsonObject,
  directory: string,
  registry: string,
  isMirror: boolean,
): Promise<Endpoint> {
  const source = /^https?:\/\//.test(text) ? text : `https://${text}`
  if (!URL.canParse(source)) throw new P2pfsError('invalid', `${JSON.stringify(text)} is not a host or its URL`)
  const url = new URL(source)
  if (/^(?:index\.)?docker\.io$/.test(url.host)) url.host = hubHost
  return {
    name: url.host === registry ? registry : endpointName(url.host),
    base: new URL(basePath(url.pathname, host['override_path'] === true), url.origin),
    isMirror,
    namespace: namespaceOf(registry, url.host),
    capabilities: parseCapabilities(host['capabilities']),
    headers: parseHeaders(host['header']),
    tls: await parseTls(host, directory),
  }
}

/** containerd's rule: `/v2` is added to a path, unless it ends with it or is to be taken as it is. */
function basePath(path: string, isWhole: boolean): string {
  const clean = posix.normalize(`${path}/`).replace(/\/$/, '')
  return isWhole || clean.endsWith('/v2') ? `${clean}/` : `${clean}/v2/`
}

function parseCapabilities(value: unknown): ReadonlySet<Capability> {
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return capabilities
  if (!Array.isArray(value)) throw new P2pfsError('invalid', 'capabilities is not a list')
  const names = new Set(value.map((name: unknown) => String(name).toLowerCase()))
  return new Set([...capabilities].filter((capability) => names.has(capability)))
}

function parseHeaders(value: unknown): Record<string, string> {
  if (value === undefined) return {}
  const lists = Object.entries(asObject(value, 'header')).map(([name, item]) => [
    name.toLowerCase(),
    [item].flat().join(', '),
  ])
  return textEntries(Object.fromEntries(lists))
}

async function parseTls(host: JsonObject, directory: string): Promise<TlsSettings | undefined> {
  const { ca, client, skip_verify: skipVerify } = host
  if (ca === undefined && client === undefined && skipVerify === undefined) return undefined
  const read = async (file: unknown): Promise<string> => {
    if (typeof file !== 'string') throw new P2pfsError('invalid', 'ca and client are files, or lists of files')
    return await readFile(resolve(directory, file), 'utf8')
  }
  const authorities = await Promise.all((ca === undefined ? [] : [ca].flat()).map(read))
  if (!authorities.every((text) => text.includes('-----BEGIN CERTIFICATE-----')))
    throw new P2pfsError('invalid', 'a file of ca has no certificate in PEM')
  // A text is a file with certificate and key; a list has such files, or pairs of a certificate and a key.
  const pairs: unknown[] = client === undefined ? [] : Array.isArray(client) ? client : [client]
  const clients = await Promise.all(
    pairs.map(async (pair) => {
      const [cert, key = cert]: unknown[] = Array.isArray(pair) ? pair : [pair]
      return { cert: await read(cert), key: await read(key) }
    }),
  )
  return { authorities, clients, verify: skipVerify !== true }
}
