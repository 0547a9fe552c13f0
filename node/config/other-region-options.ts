import { parseGivenLimit } from '../base/byte-rate.ts'
import { parseNeighbour } from '../neighbours/neighbour-options.ts'
import { checkAddress } from './checks.ts'
import { list, text } from './option.ts'

/** Other regions: those that this host is a guest of, and the guests of its own. */
export const otherRegionOptions = {
  neighbourRegion: list(
    'REGION=MULTIADDR',
    [],
    'members of other regions, which are asked for chunks before the registry: this host is their guest',
    { check: (item) => checkAddress(parseNeighbour(item).value) },
  ),
  neighbourKeyFile: list('REGION=FILE', [], 'keys for guests of those regions, from their operators', {
    check: parseNeighbour,
  }),
  neighbourBandwidth: text(
    'RATE',
    '100Mbit',
    'how much this host takes from other regions, and how much it gives to their hosts, a second; p2pfs limits changes either ' +
      'while it runs',
    { check: parseGivenLimit },
  ),
  guestKeyFile: text(
    'FILE',
    '',
    'key of the guests of this region, made by p2pfs keygen: hosts of other regions that have it may read all chunks that ' +
      'this host has, and do nothing else',
    { type: 'path', fallbackText: 'none: no guests, unless the region has no key' },
  ),
} as const
