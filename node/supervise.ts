import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { P2pfsError } from '../protocol/errors.ts'
import { exitStatusOf } from './base/exit-status.ts'
import { stderrLog, type Log } from './base/log.ts'
import { loadConfig } from './config/load-config.ts'
import type { Config } from './config/options.ts'
import { ControlSocket } from './control/socket.ts'
import { receivedDescriptors } from './service/descriptors.ts'
import { FuseMount, type FuseMountOptions } from './service/fuse-mount.ts'
import { ServiceManager } from './service/service-manager.ts'
import { StateLocks } from './service/state-locks.ts'
import { statePaths, withRealStateDir } from './state-directory.ts'
import { Supervisor } from './supervisor.ts'

/**
 * Bound on half of the heap's young generation, MiB. Node's own lets it grow to 100 MB where much is allocated, as in
 * an import, which takes no less time for it.
 */
const semiSpaceMb = 4

/**
 * Has V8 count buffers to the heap, whose limit grows with what is in use. Otherwise it collects all garbage whenever 64 MB
 * of buffers have come and gone, a fifth of the CPU time of a transfer over libp2p.
 */
const externalMemoryFlag = '--external-memory-accounted-in-global-limit'

/**
 * The heap is not collected as a whole before it has so much, with its buffers, MiB. From V8's own start, which is far below what a
 * daemon has, a boot from peers collects it five times for nothing: a fifth of its CPU time. Each thread has as much: with 96, an
 * import of a million files takes 140 MB more.
 */
const initialOldSpaceMb = 24

/** Options that stay as they are while a supervisor lives. */
const lasting = ['stateDir', 'control', 'controlGroup', 'fuseDriver'] as const

/** Says how a start deals with another supervisor, or a daemon, of the same state directory. */
export interface Start {
  /** Takes over from a supervisor that lives; mounts stay. One that takes over from a daemon alone does so always. */
  replaces: boolean
}

/**
 * Runs the node of this host until it is told to stop.
 * @param argv the command line that made `config`
 * @returns the exit status
 */
export async function supervise(given: Config, argv: readonly string[], start: Start): Promise<number> {
  const log = stderrLog(given.logLevel, 'supervisor')
  try {
    return await runSupervisor(given, argv, start, log)
  } catch (error) {
    log.error('p2pfs daemon cannot start', { error })
    return exitStatusOf(error)
  }
}

/** Ends supervisor, daemon and all mounts of a state directory. @returns the exit status */
export async function stopMounts(given: Config): Promise<number> {
  const log = stderrLog(given.logLevel, 'supervisor')
  if (!existsSync(given.stateDir)) return 0
  try {
    const { control, stateDir } = await withRealStateDir(given, log)
    const locks = new StateLocks({ log }, { stateDir })
    await locks.takeByForce()
    await new FuseMount({ log }, mountOptions(stateDir)).unmount()
    await new ControlSocket(control).removeLeftover()
    locks.release()
    return 0
  } catch (error) {
    log.error('mounts cannot be ended', { error })
    return exitStatusOf(error)
  }
}

function mountOptions(stateDir: string): FuseMountOptions {
  const { mountPoint, trees, memory, native, writable, drives } = statePaths(stateDir)
  return {
    stateDir,
    mountPoint,
    mountRoots: [trees, native, writable, drives],
    lastingRoot: native,
    memoryDirectories: [trees, memory],
  }
}

async function runSupervisor(given: Config, argv: readonly string[], start: Start, log: Log): Promise<number> {
  const config = await withRealStateDir(given, log)
  if (config.fuseDriver === 'native') {
    // The supervisor has none of the daemon's modules: they take longer to load than it, and half of the memory.
    const { runDaemon } = await import('./run-daemon.ts')
    const status = await runDaemon(config, stderrLog(config.logLevel, 'daemon'))
    // The thread of libfuse would keep the process.
    process.exit(status)
  }
  const { stateDir } = config
  const checkConfig = (): void => {
    const next = loadConfig(argv, process.env)
    const changed = lasting.find((name) => next[name] !== given[name])
    if (changed !== undefined)
      throw new P2pfsError('invalid', `${changed} has changed, which takes a restart of p2pfs daemon`)
  }
  const supervisor = new Supervisor(
    { log, manager: new ServiceManager({ log }, process.env) },
    {
      ...mountOptions(stateDir),
      control: config.control,
      controlGroup: config.controlGroup,
      command: [
        process.execPath,
        '--disable-warning=ExperimentalWarning',
        `--max-semi-space-size=${semiSpaceMb}`,
        externalMemoryFlag,
        `--initial-old-space-size=${initialOldSpaceMb}`,
        fileURLToPath(new URL('./main.ts', import.meta.url)),
        ...argv,
        // The last one counts: a daemon that replaces another has the same state, wherever a link leads by then.
        '--state-dir',
        stateDir,
      ],
      checkConfig,
    },
  )
  return await supervisor.run(receivedDescriptors(process.env, process.pid), start)
}
