import { isP2pfsError } from '../protocol/errors.ts'
import { describeCommand, type OptionDescriptions } from './command.ts'
import { exitStatusOf } from '../node/base/exit-status.ts'
import { UsageError } from './failure.ts'
import { printNote } from './output.ts'

export const command = describeCommand({
  name: 'daemon',
  usage: ['[--replace]', '--stop-mounts', '--check'],
  text: `Runs the p2pfs node of this host: a supervisor that owns the mounts, and a daemon that it restarts after
a crash.`,
  positionals: {},
  options: {
    replace: {
      help:
        'take over from the supervisor that runs for the same --state-dir, which then ends; mounts stay, and reads wait. ' +
        'One that was killed is taken over from in any case',
    },
    check: {
      help: 'say whether the options and the configuration file can be used, and exit with 0, or with 2 or 78 as a start would',
    },
    'stop-mounts': { help: 'end all mounts of --state-dir, with the daemon and its supervisor, and exit' },
  },
  notes: `Each option can also be set by an environment variable: P2PFS_STATE_DIR for --state-dir; what is given on the command
line counts first, then the environment, then the file. An option that names several things can be given several times,
or with commas; in the file it is a list: {"bootstrap": ["/ip4/10.0.0.1/tcp/4100"], "readDeadline": "2m"}.

SIZE is in bytes, or with a unit: 512MiB, 10GiB. RATE is what passes in a second: 200Mbit, 25MB, or none. TIME is in seconds,
or with a unit: 500ms, 2m, 24h.

Logs are JSON lines on stderr. SIGTERM ends the daemon and all its mounts. SIGHUP replaces the daemon by the present program and configuration; mounts
stay, and requests wait. SIGUSR2 ends the supervisor alone: the daemon serves the mounts until the next p2pfs daemon takes over;
without mounts it ends, too. A daemon that dies is started again; if none can be started for 10 minutes, its mounts end.

Exit status; the reason is in the log:
  0   stopped by a signal
  2   wrong option on the command line
  70  the daemon crashes whenever it starts
  75  cannot start now, but another try may help: a port is in use, the disk is full
  78  cannot start until something is changed, as an option in the configuration file or in the environment`,
})

/** Flags that say what to do, and are no options of the configuration. */
const actions = Object.keys(command.options).map((name) => `--${name}`)

/** The options of the daemon, whose table is that of its configuration. */
export async function moreOptions(): Promise<OptionDescriptions> {
  const { describeOptions } = await import('../node/config/described-options.ts')
  return describeOptions()
}

export async function run(given: string[]): Promise<number> {
  const argv = given.filter((argument) => !actions.includes(argument))
  const { loadConfig } = await import('../node/config/load-config.ts')
  let config: ReturnType<typeof loadConfig>
  try {
    config = loadConfig(argv, process.env)
  } catch (error) {
    if (!isP2pfsError(error, 'invalid')) throw error
    if (error.details['isStored'] !== true) throw new UsageError(error.message)
    printNote(error.message)
    return exitStatusOf(error)
  }
  if (given.includes('--check')) return 0
  const { stopMounts, supervise } = await import('../node/supervise.ts')
  if (given.includes('--stop-mounts')) return await stopMounts(config)
  return await supervise(config, argv, { replaces: given.includes('--replace') })
}
