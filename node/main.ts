import { P2pfsError } from '../protocol/errors.ts'
import { stderrLog } from './base/log.ts'
import { loadConfig } from './config/load-config.ts'
import { runDaemon, tellSupervisor } from './run-daemon.ts'
import { withRealStateDir } from './state-directory.ts'
import { inherited } from './service/descriptors.ts'

/** Runs in the process that a supervisor has started. */
async function main(): Promise<void> {
  // Resolved here, too: the supervisor may be of an earlier version.
  const given = loadConfig(process.argv.slice(2), process.env)
  const log = stderrLog(given.logLevel, 'daemon')
  const config = await withRealStateDir(given, log)
  // Node would print the error as it is, with the text of whoever caused it.
  const fail = (error: unknown): void => {
    log.error('unexpected failure; the daemon is replaced', { error })
    process.kill(process.pid, 'SIGKILL')
  }
  process.on('unhandledRejection', fail).on('uncaughtException', fail)
  const status = await runDaemon(config, log)
  await tellSupervisor(status === 0 ? 'stopped' : { cannotStart: status })
  // Worker threads are blocked in read(2) on /dev/fuse and would keep exit(3) from ending. All state is on the disk.
  process.kill(process.pid, 'SIGKILL')
}

if (process.env[inherited.fuse.variable] === undefined)
  throw new P2pfsError('invalid', 'not started by a supervisor; run p2pfs daemon')
await main()
