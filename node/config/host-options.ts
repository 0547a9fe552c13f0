import { parseListenAddress } from '../base/listen-address.ts'
import { logLevels } from '../base/log.ts'
import { text } from './option.ts'

/** This host: its state, who controls it, and what it tells of itself. */
export const hostOptions = {
  stateDir: text('DIR', '/var/lib/p2pfs', 'holds chunks, the catalog, the peer identity and the FUSE mount point', {
    type: 'path',
  }),
  control: text('SOCKET', '/run/p2pfs/p2pfs.sock', 'unix socket on which the other commands reach the daemon', {
    type: 'path',
  }),
  controlGroup: text(
    'GROUP',
    '',
    'group, by name or number, whose members may use that socket, too: they are root in effect',
    { fallbackText: 'none' },
  ),
  metricsListen: text(
    'HOST:PORT',
    '',
    'address of an HTTP server with metrics for Prometheus, probes, and a page that shows the status, such as 127.0.0.1:9464: ' +
      'whoever reaches it sees images, mounts and peers',
    { check: parseListenAddress, fallbackText: 'none' },
  ),
  logLevel: text('LEVEL', 'info', `how much to log: ${logLevels.join(', ')}`, { choices: logLevels }),
} as const
