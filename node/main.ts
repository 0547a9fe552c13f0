import { mkdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import packageManifest from '../package.json' with { type: 'json' }
import { isP2pfsError } from '../protocol/errors.ts'
import { loadConfig, type Config } from './config.ts'
import { Daemon, statePaths, type DaemonParts } from './daemon.ts'
import { createLog, type Log, type LogLevel } from './log.ts'
import { DevFuseDriver, type FuseDriverParts } from './mount/fuse-driver.ts'
import { FuseNativeDriver } from './mount/fuse-native-driver.ts'
import { LinkPlacement } from './mount/link-placement.ts'
import { BindPlacement } from './mount/mount-table.ts'
import { Supervisor } from './supervisor.ts'

/** sysexits.h, EX_CONFIG: starting again would not help. */
const configExit = 78

/** Runs the supervisor until it is told to stop. @returns the exit status */
export async function supervise(argv: readonly string[]): Promise<number> {
  const config = loadConfig(argv, process.env)
  const log = logOf(config, 'supervisor')
  if (config.fuseDriver === 'native') return await runUnsupervised(config)
  const supervisor = new Supervisor(
    { log },
    {
      stateDir: config.stateDir,
      mountPoint: statePaths(config.stateDir).mountPoint,
      command: [process.execPath, fileURLToPath(import.meta.url), ...argv],
    },
  )
  return await supervisor.run()
}

function logOf(config: Config, part: string): Log {
  return createLog(config.logLevel as LogLevel, (line) => process.stderr.write(line), { part })
}
