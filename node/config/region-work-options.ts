import { parseRateLimit } from '../base/byte-rate.ts'
import { parseRegistryName } from '../registry/endpoint.ts'
import { duration, list, size, text } from './option.ts'

/** Work of this host for the region: imports for peers, and images that it holds ahead of need. */
export const regionWorkOptions = {
  importForPeers: text(
    'none|listed|all',
    'listed',
    'registries that this host imports from for peers, with its own credentials. listed: those that it has credentials or a ' +
      'mirror for, by name, and those of --peer-registry. all: these, and any at a public address',
    { choices: ['none', 'listed', 'all'] },
  ),
  peerRegistry: list(
    'HOST[:PORT]',
    [],
    'registries, such as docker.io, that this host imports from for peers although it has neither credentials nor a mirror ' +
      'for them',
    { check: parseRegistryName },
  ),
  seedForPeers: text(
    'on|off',
    'on',
    'whether seeds of other members may place images on this host: at most half of the disk, as long as a tenth of it, or ' +
      '10GiB, is free. They are read from a registry only where --import-for-peers has it listed',
    { choices: ['on', 'off'] },
  ),
  hotImages: text(
    'on|off',
    'on',
    'whether mounts are counted in the region, and images that are mounted often are placed on hosts ahead of the next mount',
    { choices: ['on', 'off'] },
  ),
  hotDisk: size(
    20 * 2 ** 30,
    'what such images may take on this host, pinned or no longer; those that are mounted less often make room, and are evicted',
  ),
  hotBandwidth: text('RATE', '12MiB', 'how fast such images come; p2pfs limits changes it while it runs', {
    check: parseRateLimit,
  }),
  hotDelay: duration(
    30,
    'how long after an image has become hot its placing begins: the mounts that made it hot need the links themselves',
  ),
  hotTagInterval: duration(
    180,
    'how often the tag of a hot image is looked at in its registry, by one host of the region; what it has moved to is placed',
  ),
} as const
