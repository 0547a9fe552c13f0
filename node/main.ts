import { readdir, realpath } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import packageManifest from '../package.json' with { type: 'json' }
import { P2pfsError } from '../protocol/errors.ts'
import { loadConfig, type Config } from './config.ts'
import { startDaemon, statePaths, type DaemonParts } from './daemon.ts'
import { exitStatusOf } from './base/exit-status.ts'
import { makeDirectory } from './base/make-directory.ts'
import { makePrivateDirectory } from './base/private-directory.ts'
import { systemError } from './base/system-error.ts'
import { createLog, type Log, type LogLevel } from './base/log.ts'
import { DiskTemplates } from './mount/placement/disk-template.ts'
import { DevFuseDriver } from './mount/fuse/dev-fuse-driver.ts'
import { FuseNativeDriver } from './mount/fuse/fuse-native-driver.ts'
import { NativeImages, type NativeKind } from './mount/native/native-images.ts'
import { SegmentFiles } from './mount/native/segment-files.ts'
import { KernelMounter } from './mount/placement/kernel-mounter.ts'
import { KernelPlacement } from './mount/placement/kernel-placement.ts'
import { Reach } from './mount/placement/reach.ts'
import { LinkPlacement } from './mount/placement/link-placement.ts'
import { ScratchDrives } from './mount/placement/scratch-drives.ts'
import { ToolShell } from './mount/placement/tool-shell.ts'
import { Trees } from './mount/placement/trees.ts'
import { UseCheck } from './mount/placement/use-check.ts'
import { WritableLayers } from './mount/placement/writable-layers.ts'
import { inherited, Supervisor, type FromDaemon } from './supervisor.ts'

/**
 * Bound on half of the heap's young generation, MiB. Node's own lets it grow to 100 MB where much is allocated, as in
 * an import, which takes no less time for it.
 */
const semiSpaceMb = 4

/** Options that stay as they are while a supervisor lives. */
const lasting = ['stateDir', 'control', 'fuseDriver'] as const

/**
 * Runs the node of this host until it is told to stop.
 * @param argv the command line that made `config`
 * @returns the exit status
 */
export async function supervise(given: Config, argv: readonly string[]): Promise<number> {
  const log = logOf(given, 'supervisor')
  try {
    return await runSupervisor(given, argv, log)
  } catch (error) {
    log.error('p2pfs daemon cannot start', { error })
    return exitStatusOf(error)
  }
}

async function runSupervisor(given: Config, argv: readonly string[], log: Log): Promise<number> {
  const config = await withRealStateDir(given, log)
  if (config.fuseDriver === 'native') {
    const status = await runDaemon(config, logOf(config, 'daemon'))
    // The thread of libfuse would keep the process.
    process.exit(status)
  }
  const { stateDir } = config
  const { mountPoint, trees, native, writable } = statePaths(stateDir)
  const checkConfig = (): void => {
    const next = loadConfig(argv, process.env)
    const changed = lasting.find((name) => next[name] !== given[name])
    if (changed !== undefined)
      throw new P2pfsError(
        'invalid',
        `${changed} has changed, which takes a restart of p2pfs daemon and ends its mounts`,
      )
  }
  const supervisor = new Supervisor(
    { log },
    {
      stateDir,
      control: config.control,
      mountPoint,
      mountRoots: [trees, native, writable],
      lastingRoot: native,
      command: [
        process.execPath,
        '--disable-warning=ExperimentalWarning',
        `--max-semi-space-size=${semiSpaceMb}`,
        fileURLToPath(import.meta.url),
        ...argv,
        // The last one counts: a daemon that replaces another has the same state, wherever a link leads by then.
        '--state-dir',
        stateDir,
      ],
      checkConfig,
    },
  )
  return await supervisor.run()
}

/**
 * The kernel tells paths of mounts without symbolic links, so the state directory has to be known by such a path. It is
 * this user's alone, wherever a link leads.
 */
async function withRealStateDir(config: Config, log: Log): Promise<Config> {
  try {
    await makeDirectory(config.stateDir, { mode: 0o700 })
    const stateDir = await realpath(config.stateDir)
    const check = async (): Promise<void> => await refuseSharedDirectory(stateDir)
    const { formerMode } = await makePrivateDirectory(stateDir, { check })
    if (formerMode !== undefined)
      log.warn('state directory was open to other users; it is closed', { stateDir, mode: formerMode.toString(8) })
    return { ...config, stateDir }
  } catch (error) {
    throw systemError(`cannot use the state directory ${config.stateDir}`, error)
  }
}

/** A directory of others is not closed to them because somebody named it by mistake, as /tmp. @throws invalid */
async function refuseSharedDirectory(stateDir: string): Promise<void> {
  const own = new Set([...Object.values(statePaths('')), 'lock', 'lost+found'].map((path) => basename(path)))
  const foreign = (await readdir(stateDir)).find((name) => !own.has(name))
  if (foreign === undefined) return
  throw new P2pfsError(
    'invalid',
    `it is open to other users, and has more than the state of p2pfs in it (${foreign}); if it is for p2pfs alone, ` +
      `chmod 700 ${stateDir}, otherwise choose a directory that is not there yet`,
  )
}

function logOf(config: Config, part: string): Log {
  return createLog(config.logLevel as LogLevel, (line) => process.stderr.write(line), { part })
}

/** Starts the daemon and waits for a signal. Mounts outlive it if a supervisor holds them. @returns the exit status */
async function runDaemon(config: Config, log: Log): Promise<number> {
  const temporaryPath = process.env[inherited.control.variable]
  let daemon: AsyncDisposable
  const stop = Promise.withResolvers<void>()
  process.on('SIGTERM', stop.resolve).on('SIGINT', stop.resolve)
  process.on('disconnect', () =>
    log.error('supervisor has died; this daemon serves alone until it is stopped', { pid: process.pid }),
  )
  try {
    const control = temporaryPath === undefined ? undefined : { fd: inherited.control.fd, temporaryPath }
    const parts = { log, version: packageManifest.version, openMountBackend: mountBackendFor(config, log), control }
    daemon = await startDaemon(parts, config)
  } catch (error) {
    log.error('daemon cannot start', { error })
    return exitStatusOf(error)
  }
  await tellSupervisor('ready')
  await stop.promise
  await daemon[Symbol.asyncDispose]()
  return 0
}

/** Resolves when the message has been sent. */
async function tellSupervisor(message: FromDaemon): Promise<void> {
  if (!process.connected) return
  await new Promise<void>((resolve) => process.send!(message, undefined, undefined, () => resolve()))
}

function mountBackendFor(config: Config, log: Log): DaemonParts['openMountBackend'] {
  const { mountPoint, trees, native, writable, scratch, templates: templateDirectory } = statePaths(config.stateDir)
  return ({ chunkDirectory, suspect }) => {
    if (config.fuseDriver === 'native') {
      return {
        driver: new FuseNativeDriver({ log }, { mountPoint }),
        placement: new LinkPlacement({ mountPoint }),
        natives: undefined,
      }
    }
    const fd = Number(process.env[inherited.fuse.variable])
    // Nothing can be served before the supervisor has mounted again.
    const lost = (): void => {
      log.error('FUSE filesystem is no longer served; the daemon is replaced')
      process.kill(process.pid, 'SIGKILL')
    }
    const resumed = process.env[inherited.resumed] !== undefined
    const { run } = new ToolShell()
    const mounter = new KernelMounter({ run })
    const uses = new UseCheck({ run })
    const templates = new DiskTemplates({ run }, { directory: templateDirectory })
    const segments = new SegmentFiles(
      { suspect, run, log },
      { directory: join(native, 'segments'), chunkDirectory, limitBytes: config.nativeLimit },
    )
    const natives = new NativeImages({ segments, mounter, log }, { directory: native, kinds: nativeKindsOf(config) })
    return {
      natives,
      driver: new DevFuseDriver({ fd, resumed, chunkDirectory, log, lost }, { workers: config.fuseWorkers }),
      placement: new KernelPlacement(
        {
          mounter,
          trees: new Trees({ mounter }, { directory: trees, mountPoint }),
          writables: new WritableLayers({ mounter, templates, uses, log }, { directory: writable }),
          scratches: new ScratchDrives({ templates, uses, log }, { directory: scratch }),
          reach: new Reach({ run }),
          natives,
        },
        { mountPoint, roots: [mountPoint, trees, native, writable] },
      ),
    }
  }
}

function nativeKindsOf({ nativeReads }: Pick<Config, 'nativeReads'>): NativeKind[] {
  if (nativeReads === 'off') return []
  return nativeReads === 'all' ? ['tree', 'drive'] : ['tree']
}

/** Runs in the process that a supervisor has started. */
async function main(): Promise<void> {
  // Resolved here, too: the supervisor may be of an earlier version.
  const given = loadConfig(process.argv.slice(2), process.env)
  const log = logOf(given, 'daemon')
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

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.env[inherited.fuse.variable] === undefined)
    throw new P2pfsError('invalid', 'not started by a supervisor; run p2pfs daemon')
  await main()
}
