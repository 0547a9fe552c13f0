import { P2pfsError } from '../../protocol/errors.ts'
import { parseNeighbour } from '../neighbours/neighbour-options.ts'
import type { Config } from './options.ts'
import { listenFallback } from './region-options.ts'

/** @throws invalid where the daemon could be reached by strangers although nobody has allowed that */
export function withListen(config: Config): Config {
  const isPrivate = config.regionKeyFile !== ''
  if (isPrivate && config.openRegion)
    throw new P2pfsError('invalid', '--open-region lets everybody in, --region-key-file only hosts that have the key')
  if (isPrivate || config.openRegion)
    return { ...config, listen: config.listen.length > 0 ? config.listen : [listenFallback.everywhere] }
  const own = [...config.listen, ...(config.bulkListen === '' ? [] : [config.bulkListen])]
  const keys = new Set(config.neighbourKeyFile.map((item) => parseNeighbour(item).region))
  const neighbours = config.neighbourRegion
    .map((item) => parseNeighbour(item))
    .filter(({ region }) => !keys.has(region))
    .map(({ value }) => value)
  const exposed = [...own, ...config.bootstrap, ...neighbours].find((address) => !isLoopback(address))
  if (exposed !== undefined)
    throw new P2pfsError(
      'invalid',
      `without a region key, peers can be on this host only, and ${exposed} is not on loopback; make a key with ` +
        'p2pfs keygen, and start all hosts of the region with it as --region-key-file; or let everybody in with ' +
        '--open-region',
    )
  return { ...config, listen: config.listen.length > 0 ? config.listen : [listenFallback.loopback] }
}

/** Whether the text is a multiaddr of a loopback address, or no multiaddr at all: that is refused elsewhere. */
function isLoopback(address: string): boolean {
  return /^\/ip4\/127\.\d+\.\d+\.\d+(\/|$)|^\/ip6\/::1(\/|$)|^(?!\/)/.test(address)
}
