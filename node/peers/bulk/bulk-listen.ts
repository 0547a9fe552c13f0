import { isIP } from 'node:net'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { BulkListen } from './thread-messages.ts'

/**
 * Where to accept bulk connections.
 * @param given a multiaddr such as `/ip4/0.0.0.0/tcp/4101`; undefined: beside the first of the addresses that libp2p
 *   listens on, at the next port, or at any if that is in use
 * @throws invalid
 */
export function parseBulkListen(given: string | undefined, listen: readonly string[]): BulkListen {
  if (given !== undefined) {
    const address = parse(given)
    if (address === undefined)
      throw new P2pfsError('invalid', `--bulk-listen is ${given}; it takes an address such as /ip4/0.0.0.0/tcp/4101`)
    return { ...address, orAny: false }
  }
  for (const text of listen) {
    const address = parse(text)
    if (address === undefined) continue
    return {
      host: address.host,
      port: address.port === 0 || address.port === 65_535 ? 0 : address.port + 1,
      orAny: true,
    }
  }
  return { host: '127.0.0.1', port: 0, orAny: true }
}

function parse(multiaddr: string): { host: string; port: number } | undefined {
  const match = /^\/ip[46]\/([^/]+)\/tcp\/(\d{1,5})$/.exec(multiaddr)
  if (match === null || isIP(match[1]!) === 0 || Number(match[2]) > 65_535) return undefined
  return { host: match[1]!, port: Number(match[2]) }
}
