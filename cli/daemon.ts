import { isP2pfsError } from '../protocol/errors.ts'
import { describeCommand, type OptionDescriptions } from './command.ts'
import { UsageError } from './failure.ts'

export const command = describeCommand({
  name: 'daemon',
  usage: [''],
  text: `Runs the p2pfs node of this host: a supervisor that owns the mounts, and a daemon that it restarts after
a crash.`,
  positionals: {},
  options: {},
  notes: `Each option can also be set by an environment variable: P2PFS_STATE_DIR for --state-dir. Logs are JSON lines on stderr.
SIGTERM ends the daemon and all its mounts. SIGHUP replaces the daemon by the present program and configuration; mounts
stay, and requests wait. A daemon that dies is started again; if none can be started for 10 minutes, its mounts end.

Exit status; the reason is in the log:
  0   stopped by a signal
  2   wrong option
  70  the daemon crashes whenever it starts
  75  cannot start now, but another try may help: a port is in use, the disk is full
  78  cannot start until something is changed`,
})

/** The options of the daemon, whose table is that of its configuration. */
export async function moreOptions(): Promise<OptionDescriptions> {
  const { describeOptions } = await import('../node/config.ts')
  return describeOptions()
}

export async function run(argv: string[]): Promise<number> {
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
