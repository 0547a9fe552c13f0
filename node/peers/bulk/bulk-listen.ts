import { isIP } from 'node:net'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { BulkListen } from './thread-messages.ts'

/**
 * Parses the option that says where bulk connections are accepted.
 * @param given a multiaddr such as `/ip4/0.0.0.0/tcp/4101`; undefined: at all addresses that libp2p listens on, at the port
 *   after the first one's, or at any if that is in use. A peer takes the address at which it reaches libp2p
 * @throws invalid
 */
export function parseBulkListen(given: string | undefined, listen: readonly string[]): BulkListen {
  if (given !== undefined) {
    const address = parse(given)
    if (address === undefined)
      throw new P2pfsError('invalid', `--bulk-listen is ${given}; it takes an address such as /ip4/0.0.0.0/tcp/4101`)
    return { hosts: [address.host], port: address.port, orAny: false }
  }
  const addresses = listen.flatMap((text) => parse(text) ?? [])
  const [first] = addresses
  if (first === undefined) return { hosts: ['127.0.0.1'], port: 0, orAny: true }
  return {
    hosts: withoutCovered([...new Set(addresses.map(({ host }) => host))]),
    port: first.port === 0 || first.port === 65_535 ? 0 : first.port + 1,
    orAny: true,
  }
}

/** Without those that a wildcard address of the same family stands for. */
function withoutCovered(hosts: readonly string[]): string[] {
  const wildcards = { 4: hosts.includes('0.0.0.0'), 6: hosts.includes('::') }
  return hosts.filter((host) => host === '0.0.0.0' || host === '::' || !wildcards[isIP(host) as 4 | 6])
}

function parse(multiaddr: string): { host: string; port: number } | undefined {
  const match = /^\/ip[46]\/([^/]+)\/tcp\/(\d{1,5})$/.exec(multiaddr)
  if (match === null || isIP(match[1]!) === 0 || Number(match[2]) > 65_535) return undefined
  return { host: match[1]!, port: Number(match[2]) }
}
