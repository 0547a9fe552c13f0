import { isP2pfsError } from '../protocol/errors.ts'
import { UsageError } from './failure.ts'
import { printHelp } from './output.ts'

const help = (
  options: string,
): string => `Runs the p2pfs node of this host: a supervisor that owns the mounts, and a daemon that it restarts after
a crash.

Usage: p2pfs daemon [OPTION...]

${options}
  --help
      show this help

Each option can also be set by an environment variable: P2PFS_STATE_DIR for --state-dir. Logs are JSON lines on stderr.
SIGTERM ends the daemon and all its mounts. SIGHUP replaces the daemon by the present program and configuration; mounts
stay, and requests wait. A daemon that dies is started again; if none can be started for 10 minutes, its mounts end.

Exit status; the reason is in the log:
  0   stopped by a signal
  2   wrong option
  70  the daemon crashes whenever it starts
  75  cannot start now, but another try may help: a port is in use, the disk is full
  78  cannot start until something is changed
`

export async function run(argv: string[]): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) {
    const { describeOptions } = await import('../node/config.ts')
    printHelp(help(describeOptions()))
    return 0
  }
  const { loadConfig } = await import('../node/config.ts')
  let config: ReturnType<typeof loadConfig>
  try {
    config = loadConfig(argv, process.env)
  } catch (error) {
    throw isP2pfsError(error, 'invalid') ? new UsageError(error.message) : error
  }
  const { supervise } = await import('../node/supervise.ts')
  return await supervise(config, argv)
}
