import { BlockList, isIP } from 'node:net'
import { P2pfsError } from '../../protocol/errors.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** Hosts that are never reached through a proxy, as in Docker and Go. */
const loopback = /^(?:localhost|.+\.localhost|127(?:\.\d+){3}|\[::1\])$/

/**
 * The proxy for a URL by HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in upper or lower case, as Go and so Docker read them.
 * NO_PROXY lists hosts, which stand for their subdomains too, with or without a port; addresses; networks as
 * 10.0.0.0/8; or *.
 * @throws invalid for a proxy that is not a URL; the message leaves out its value, which may hold a password
 */
export function proxyFor({ protocol, hostname, port }: URL, environment: Environment): string | undefined {
  const name = protocol === 'https:' ? 'https_proxy' : 'http_proxy'
  const value = read(environment, name)
  if (value === '' || loopback.test(hostname)) return undefined
  const entries = read(environment, 'no_proxy')
    .split(/[,\s]+/)
    .filter((entry) => entry !== '')
  const effectivePort = port === '' ? (protocol === 'https:' ? '443' : '80') : port
  if (entries.some((entry) => exempts(entry.toLowerCase(), hostname, effectivePort))) return undefined
  const url = /^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `http://${value}`
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new P2pfsError('invalid', `${name.toUpperCase()} in the environment is not the URL of an HTTP proxy`)
  return url
}

function read(environment: Environment, name: string): string {
  return (environment[name] ?? environment[name.toUpperCase()] ?? '').trim()
}

function exempts(entry: string, hostname: string, port: string): boolean {
  if (entry === '*') return true
  const address = hostname.replace(/^\[(.*)\]$/, '$1')
  const family = isIP(address)
  const [, network = '', bits = ''] = /^(.+)\/(\d+)$/.exec(entry) ?? []
  if (network !== '') {
    if (family === 0 || isIP(network) !== family || Number(bits) > (family === 4 ? 32 : 128)) return false
    const type = family === 4 ? 'ipv4' : 'ipv6'
    const list = new BlockList()
    list.addSubnet(network, Number(bits), type)
    return list.check(address, type)
  }
  const [, named = entry, entryPort] = /^(.+?|\[.+\]):(\d+)$/.exec(isIP(entry) === 6 ? '' : entry) ?? []
  if (entryPort !== undefined && entryPort !== port) return false
  const host = named.replace(/^\[(.*)\]$/, '$1').replace(/^\*?\./, '')
  return address === host || (family === 0 && address.endsWith(`.${host}`))
}
