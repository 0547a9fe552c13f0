import { mkdir, realpath } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import packageManifest from '../package.json' with { type: 'json' }
import { isP2pfsError, P2pfsError } from '../protocol/errors.ts'
import { loadConfig, type Config } from './config.ts'
import { startDaemon, statePaths, type DaemonParts } from './daemon.ts'
import { createLog, type Log, type LogLevel } from './base/log.ts'
import { DiskTemplates } from './mount/placement/disk-template.ts'
import { DevFuseDriver } from './mount/fuse/dev-fuse-driver.ts'
import { FuseNativeDriver } from './mount/fuse/fuse-native-driver.ts'
import { KernelMounter } from './mount/placement/kernel-mounter.ts'
import { KernelPlacement } from './mount/placement/kernel-placement.ts'
import { LinkPlacement } from './mount/placement/link-placement.ts'
import { ScratchDrives } from './mount/placement/scratch-drives.ts'
import { ToolShell } from './mount/placement/tool-shell.ts'
import { Trees } from './mount/placement/trees.ts'
import { UseCheck } from './mount/placement/use-check.ts'
import { WritableLayers } from './mount/placement/writable-layers.ts'
import { configExit, inherited, Supervisor, type FromDaemon } from './supervisor.ts'

/** Runs the node of this host until it is told to stop. @returns the exit status */
export async function supervise(argv: readonly string[]): Promise<number> {
  const config = await withRealStateDir(loadConfig(argv, process.env))
  const { stateDir } = config
  if (config.fuseDriver === 'native') return await runDaemon(config, logOf(config, 'daemon'))
  const { mountPoint, trees, writable } = statePaths(stateDir)
  const supervisor = new Supervisor(
    { log: logOf(config, 'supervisor') },
    {
      stateDir,
      mountPoint,
      mountRoots: [trees, writable],
      command: [
        process.execPath,
        '--disable-warning=ExperimentalWarning',
        fileURLToPath(import.meta.url),
        ...argv,
        // The last one counts: a daemon that replaces another has the same state, wherever a link leads by then.
        '--state-dir',
        stateDir,
      ],
    },
  )
  return await supervisor.run()
}

/** The kernel tells paths of mounts without symbolic links, so the state directory has to be known by such a path. */
async function withRealStateDir(config: Config): Promise<Config> {
  await mkdir(config.stateDir, { recursive: true, mode: 0o700 })
  return { ...config, stateDir: await realpath(config.stateDir) }
}

function logOf(config: Config, part: string): Log {
  return createLog(config.logLevel as LogLevel, (line) => process.stderr.write(line), { part })
}

/** Starts the daemon and waits for a signal; mounts outlive it where a supervisor holds them. */
async function runDaemon(config: Config, log: Log): Promise<number> {
  let daemon: AsyncDisposable
  const stop = Promise.withResolvers<void>()
  process.on('SIGTERM', stop.resolve).on('SIGINT', stop.resolve)
  process.on('disconnect', () =>
    log.error('supervisor is gone; this daemon goes on serving alone, until it is stopped', { pid: process.pid }),
  )
  try {
    const parts = { log, version: packageManifest.version, openMountBackend: mountBackendFor(config, log) }
    daemon = await startDaemon(parts, config)
  } catch (error) {
    log.error('daemon cannot start', { error })
    return isP2pfsError(error, 'invalid', 'conflict', 'unsupported') ? configExit : 1
  }
  await tellSupervisor('ready')
  await stop.promise
  await daemon[Symbol.asyncDispose]()
  return 0
}

/** Resolves when the message is on its way. */
async function tellSupervisor(message: FromDaemon): Promise<void> {
  if (!process.connected) return
  await new Promise<void>((resolve) => process.send!(message, undefined, undefined, () => resolve()))
}

function mountBackendFor(config: Config, log: Log): DaemonParts['openMountBackend'] {
  const { mountPoint, trees, writable, scratch, templates: templateDirectory } = statePaths(config.stateDir)
  return ({ chunkDirectory }) => {
    if (config.fuseDriver === 'native') {
      return {
        driver: new FuseNativeDriver({ log }, { mountPoint }),
        placement: new LinkPlacement({ mountPoint }),
      }
    }
    const fd = Number(process.env[inherited.fuse.variable])
    const resumed = process.env[inherited.resumed] !== undefined
    const { run } = new ToolShell()
    const mounter = new KernelMounter({ run })
    const uses = new UseCheck({ run })
    const templates = new DiskTemplates({ run }, { directory: templateDirectory })
    return {
      driver: new DevFuseDriver({ fd, resumed, chunkDirectory, log }, { workers: config.fuseWorkers }),
      placement: new KernelPlacement(
        {
          mounter,
          trees: new Trees({ mounter }, { directory: trees, mountPoint }),
          writables: new WritableLayers({ mounter, templates, uses, log }, { directory: writable }),
          scratches: new ScratchDrives({ templates, uses, log }, { directory: scratch }),
        },
        { mountPoint, roots: [mountPoint, trees, writable] },
      ),
    }
  }
}

/** The process that a supervisor has spawned. */
async function main(): Promise<void> {
  // Resolved here, too: the supervisor may be of an earlier version.
  const config = await withRealStateDir(loadConfig(process.argv.slice(2), process.env))
  const log = logOf(config, 'daemon')
  process.on('unhandledRejection', (error) => {
    log.error('unhandled failure; the daemon is replaced', { error })
    process.kill(process.pid, 'SIGKILL')
  })
  const status = await runDaemon(config, log)
  if (status !== 0) process.exit(status)
  await tellSupervisor('stopped')
  // Worker threads sit in read(2) on /dev/fuse, which no exit waits out; all state is on the disk.
  process.kill(process.pid, 'SIGKILL')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.env[inherited.fuse.variable] === undefined)
    throw new P2pfsError('invalid', 'not started by a supervisor; run p2pfs daemon')
  await main()
}
