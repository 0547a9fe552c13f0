import { hostname } from 'node:os'
import { checkAddress, checkTextLength } from './checks.ts'
import { count, list, text, type Option } from './option.ts'

/** Addresses to listen on if none are given. */
export const listenFallback = { everywhere: '/ip4/0.0.0.0/tcp/4100', loopback: '/ip4/127.0.0.1/tcp/4100' } as const

/** The region: who is let in, and how its members reach each other. */
export const regionOptions = {
  region: text('NAME', 'default', 'the daemon exchanges chunks only with peers of the same region', {
    check: checkTextLength,
  }),
  regionKeyFile: text(
    'FILE',
    '',
    'key of the region, made by p2pfs keygen: only hosts that have it are let in. Without it the daemon is reached on ' +
      'loopback only',
    { type: 'path', fallbackText: 'none' },
  ),
  regionMembers: text(
    'FILE',
    '',
    'file with the peer ids (see p2pfs status) of the hosts that may be members, one a line; all others are turned ' +
      'away, even with the key',
    { type: 'path', fallbackText: 'everybody who has the key' },
  ),
  openRegion: {
    type: 'flag',
    value: '',
    fallback: false,
    meaning:
      'lets everybody who reaches this host be a member of the region, without a key: he can read every image that ' +
      'the region has',
  } as Option<boolean>,
  name: text('NAME', hostname(), 'name of this host in the status of its peers', {
    fallbackText: 'the host name',
    check: checkTextLength,
  }),
  listen: list('MULTIADDR', [], 'addresses at which peers reach this host', {
    check: checkAddress,
    fallbackText: `${listenFallback.everywhere} with a region key, else ${listenFallback.loopback}`,
  }),
  bulk: text(
    'on|off|plain',
    'on',
    'whether chunks that nobody waits for go over connections beside libp2p, which are several times as fast; plain ' +
      'does not encrypt them, for networks that do: all hosts must say so',
    { choices: ['on', 'off', 'plain'] },
  ),
  bulkListen: text('MULTIADDR', '', 'address of such connections, such as /ip4/0.0.0.0/tcp/4101', {
    check: checkAddress,
    fallbackText: 'those of --listen, at the port after the first, or at any if that is in use',
  }),
  bootstrap: list('MULTIADDR', [], 'members of the region to connect to first; they name the other members', {
    check: checkAddress,
  }),
  fullMesh: {
    ...count(0, 'members of the largest region in which all are connected to all; 0: as many as usual'),
    isHidden: true,
  },
} as const
