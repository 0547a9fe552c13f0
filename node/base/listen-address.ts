import { isIP } from 'node:net'
import { P2pfsError } from '../../protocol/errors.ts'

/** The address of a server. */
export interface ListenAddress {
  /** An IP address, or `localhost`. */
  host: string
  port: number
}

/** Parses `HOST:PORT`, where HOST is an IPv4 address, an IPv6 address in brackets, or `localhost`. @throws invalid */
export function parseListenAddress(text: string): ListenAddress {
  const [, host = '', port = ''] = /^(.*):([0-9]{1,5})$/.exec(text) ?? []
  const address = /^\[(.*)\]$/.exec(host)?.[1] ?? host
  const isHost = address === 'localhost' || isIP(address) === (address === host ? 4 : 6)
  if (!isHost || Number(port) > 65_535)
    throw new P2pfsError(
      'invalid',
      `${text} is no address to listen on; it is one such as 127.0.0.1:9464 or [::1]:9464`,
    )
  return { host: address, port: Number(port) }
}

/** Whether only this host can reach it. */
export function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)
}
