import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../protocol/errors.ts'
import type { Log } from './base/log.ts'
import { makePrivateDirectory } from './base/private-directory.ts'
import { systemError } from './base/system-error.ts'
import { ControlSocket } from './control/socket.ts'
import { exitStatus } from './base/exit-status.ts'
import { limitReadAhead } from './mount/placement/kernel-read-ahead.ts'
import { readMounts } from './mount/placement/mountinfo.ts'
import { lastingMounts, ownMounts } from './mount/placement/own-mounts.ts'
import { runTool, toolEnvironment } from './mount/placement/run-tool.ts'

/** Descriptors that the daemon inherits, and the environment variables that name them. */
export const inherited = {
  /** Descriptor of /dev/fuse. */
  fuse: { fd: 3, variable: 'P2PFS_FUSE_FD' },
  /** Descriptor of the state directory's lock, which is held as long as any process has it. */
  lock: { fd: 4 },
  /** Descriptor of the control socket; the variable has the path that it is bound to until it is published. */
  control: { fd: 5, variable: 'P2PFS_CONTROL_BOUND' },
  /** Variable that is set if another daemon has served the mount before. */
  resumed: 'P2PFS_RESUMED',
  /** Variable that has how many daemons were replaced by order, and how many because they ended: `1,0`. */
  replaced: 'P2PFS_REPLACED',
} as const

/**
 * Messages of the daemon: it serves; it has stopped as it was told; it cannot start, and with which status `p2pfs
 * daemon` should end. After the last two it ends by SIGKILL.
 */
export type FromDaemon = 'ready' | 'stopped' | { cannotStart: number }

/** Pauses before a daemon that died is started again (ms): the first restart is immediate. */
const respawnDelaysMs = [0, 100, 500, 1_000, 2_000, 5_000] as const
/** A daemon that ran this long (ms) was healthy: its end counts as the first failure. */
const wellAfterMs = 30_000
/**
 * Memory of this size and more goes back to the system as soon as it is freed (bytes): glibc, mallopt(3),
 * M_MMAP_THRESHOLD. Without a fixed number glibc raises it to the size of chunks, and 100 MB of freed chunks stay with
 * the process.
 */
const mmapThresholdBytes = 64 * 1024
/** Heaps of glibc's malloc, M_ARENA_MAX: with eight for each core what threads have freed stays with the process. */
const maxArenas = 2
/** How long a daemon may take to stop (ms). */
const stopMs = 10_000
/** How often a daemon is started that dies before it has ever served. */
const maxFirstStarts = 5
/**
 * How long mounts wait for a daemon that does not start (ms), for instance after an upgrade that failed: time for a
 * person to mend it. After that they end, as a reader should not wait for ever.
 */
const giveUpMs = 10 * 60_000
/** O_PATH of open(2), which node:fs does not name: x86 and arm64 have the same value. */
const openPath = 0o10000000

export interface SupervisorOptions {
  stateDir: string
  /** Path of the control socket. */
  control: string
  mountPoint: string
  /** Directories below which the daemon mounts what it needs. */
  mountRoots: readonly string[]
  /** The one of them whose mounts need no daemon: a supervisor that was killed leaves them to the next. */
  lastingRoot: string
  /** The daemon's program and arguments. */
  command: readonly string[]
  /** Checks that the configuration can be used by another daemon. @throws invalid */
  checkConfig: () => void
}

interface DaemonEnd {
  status: number | string
  /** It was told to stop. */
  expected: boolean
  wasReady: boolean
}

/**
 * Owns what outlives a daemon: the kernel mount with its descriptor of /dev/fuse, and the control socket. Keeps a
 * daemon running that serves both. While this process lives, a daemon may die or be replaced: readers and requests
 * only wait.
 */
export class Supervisor {
  readonly #log: Log
  readonly #options: SupervisorOptions
  readonly #control: ControlSocket
  #controlFd: number | undefined
  #lock: number | undefined
  #fuse: number | undefined
  /** Keeps the mount point in use, so that umount(8) refuses to take it away from under the daemon. */
  #pin: number | undefined
  #daemon: ChildProcess | undefined
  /** Daemons that were replaced: by order, and because they ended. */
  readonly #replaced = { ordered: 0, unexpected: 0 }
  #stopping = false
  #wakeUp: (() => void) | undefined

  constructor({ log }: { log: Log }, options: SupervisorOptions) {
    this.#log = log
    this.#options = options
    this.#control = new ControlSocket(options.control)
  }

  /**
   * Runs until it is told to stop.
   * @returns the exit status: 0, or that of a daemon which could not start
   * @throws conflict if another daemon has the state directory or the control socket; invalid, unsupported or
   * unavailable if the state directory, the control socket or FUSE cannot be used
   */
  async run(): Promise<number> {
    await this.#takeLock()
    await this.#control.prepare()
    const onStop = (): void => this.stop()
    const onReplace = (): void => this.replace()
    process.on('SIGTERM', onStop).on('SIGINT', onStop).on('SIGHUP', onReplace)
    try {
      this.#controlFd = await this.#control.bind()
      await this.#mount()
      return await this.#keepRunning()
    } finally {
      await this.#control.remove()
      await this.#unmount()
      process.off('SIGTERM', onStop).off('SIGINT', onStop).off('SIGHUP', onReplace)
    }
  }

  /** Ends the daemon and all its mounts; {@link run} then returns. */
  stop(): void {
    this.#stopping = true
    this.#wakeUp?.()
    this.#end()
  }

  /** Has another daemon take over, with the program and configuration that are on the disk now. Mounts stay. */
  replace(): void {
    try {
      this.#options.checkConfig()
    } catch (error) {
      this.#log.error('daemon is not replaced: its configuration cannot be used', { error })
      return
    }
    this.#log.info('daemon is being replaced')
    this.#end()
  }

  #end(): void {
    const daemon = this.#daemon
    if (daemon === undefined) return
    daemon.kill('SIGTERM')
    const timer = setTimeout(() => {
      this.#log.warn('daemon does not stop; killed', { pid: daemon.pid })
      daemon.kill('SIGKILL')
    }, stopMs)
    daemon.once('exit', () => clearTimeout(timer))
  }

  async #keepRunning(): Promise<number> {
    let failures = 0
    /** When a daemon was last seen serving; undefined before the first one has. */
    let servedMs: number | undefined
    for (let resumed = false; !this.#stopping; resumed = true) {
      const isFresh = await this.#mountAgain()
      if (this.#stopping) break
      const startedMs = performance.now()
      const end = await this.#runDaemon(resumed && !isFresh)
      if (this.#stopping) break
      const { status, expected, wasReady } = end
      const nowMs = performance.now()
      this.#replaced[expected ? 'ordered' : 'unexpected']++
      if (wasReady) servedMs = nowMs
      if (nowMs - startedMs > wellAfterMs || expected) failures = 0
      // Readers wait, so a daemon that served before it died is needed back soon.
      else if (wasReady) failures = Math.min(failures, 1)
      if (!wasReady && !expected && (await this.#isFinal(status, failures + 1, servedMs))) {
        this.#log.error('daemon does not start; its mounts end', { status })
        return Object.values(exitStatus).find((candidate) => candidate === status) ?? exitStatus.crashes
      }
      if (!expected) this.#log.warn('daemon ended unexpectedly; another is started, mounts wait', { status })
      await this.#pause(expected ? 0 : respawnDelaysMs[Math.min(failures++, respawnDelaysMs.length - 1)]!)
    }
    return 0
  }

  /** Whether a daemon that ended before it served is the last one. */
  async #isFinal(status: number | string, starts: number, servedMs: number | undefined): Promise<boolean> {
    // It said why, and nobody waits for it.
    const isVerdict = status === exitStatus.tryAgain || status === exitStatus.needsChange
    if (isVerdict && !(await this.#hasUsers())) return true
    return servedMs === undefined ? starts >= maxFirstStarts : performance.now() - servedMs > giveUpMs
  }

  /** Whether something of ours is mounted on a directory of a user. */
  async #hasUsers(): Promise<boolean> {
    const { mountPoint, mountRoots } = this.#options
    return (await ownMounts([mountPoint, ...mountRoots])).some(({ bound }) => bound)
  }

  async #pause(delayMs: number): Promise<void> {
    if (delayMs === 0 || this.#stopping) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, delayMs)
      this.#wakeUp = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#wakeUp = undefined
  }

  async #runDaemon(resumed: boolean): Promise<DaemonEnd> {
    const [program = '', ...argv] = this.#options.command
    const daemon = spawn(program, argv, {
      stdio: ['ignore', 'inherit', 'inherit', this.#fuse, this.#lock, this.#controlFd, 'ipc'],
      env: {
        MALLOC_MMAP_THRESHOLD_: String(mmapThresholdBytes),
        MALLOC_ARENA_MAX: String(maxArenas),
        ...process.env,
        [inherited.fuse.variable]: String(inherited.fuse.fd),
        [inherited.control.variable]: this.#control.temporaryPath,
        [inherited.replaced]: `${this.#replaced.ordered},${this.#replaced.unexpected}`,
        ...(resumed ? { [inherited.resumed]: '1' } : {}),
      },
      // In its own process group, so that Ctrl-C reaches only the supervisor, which then stops the daemon.
      detached: true,
    })
    this.#daemon = daemon
    let expected = false
    let wasReady = false
    let verdict: number | undefined
    daemon.on('message', (message: FromDaemon) => {
      if (message === 'ready') wasReady = true
      else if (message === 'stopped') expected = true
      else verdict = message.cannotStart
    })
    const [code, signal] = (await once(daemon, 'exit')) as [number | null, string | null]
    this.#daemon = undefined
    return { status: verdict ?? code ?? signal ?? 'unknown', expected, wasReady }
  }

  /**
   * Makes the state directory and locks it. The lock belongs to the open file, not to a process: flock(1) takes it on
   * our descriptor, and it stays ours.
   */
  async #takeLock(): Promise<void> {
    const { stateDir } = this.#options
    const path = join(stateDir, 'lock')
    let fd: number
    try {
      await makePrivateDirectory(stateDir)
      fd = openSync(path, 'a+', 0o600)
    } catch (error) {
      throw systemError(`cannot use the state directory ${stateDir}`, error)
    }
    const child = spawn('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', fd], env: toolEnvironment() })
    const [status] = (await once(child, 'exit')) as [number | null]
    if (status !== 0) {
      closeSync(fd)
      const pid = readFileSync(path, 'utf8').trim()
      throw new P2pfsError(
        'conflict',
        `another p2pfs daemon (pid ${pid || 'unknown'}) uses ${stateDir}; stop it first, or use another --state-dir`,
        { stateDir },
      )
    }
    await truncate(path)
    writeFileSync(fd, `${process.pid}\n`)
    this.#lock = fd
  }

  /**
   * Mounts again if somebody has unmounted the FUSE filesystem by hand, which ends it once nothing else is mounted of
   * it.
   * @returns whether it did
   */
  async #mountAgain(): Promise<boolean> {
    const { mountPoint } = this.#options
    if ((await readMounts()).some((mount) => mount.mountPoint === mountPoint)) return false
    if (await this.#hasUsers()) {
      this.#log.error(
        'FUSE filesystem was unmounted by hand; present mounts go on, new ones fail until p2pfs is restarted',
        {
          mountPoint,
        },
      )
      return false
    }
    this.#log.warn('FUSE filesystem was unmounted by hand; mounted again', { mountPoint })
    await this.#unmountFuse()
    await this.#mount()
    return true
  }

  async #mount(): Promise<void> {
    const { mountPoint } = this.#options
    await this.#detach('left by a daemon that is gone')
    await makePrivateDirectory(mountPoint).catch((error: unknown) => {
      throw systemError(`cannot use the state directory ${this.#options.stateDir}`, error)
    })
    try {
      this.#fuse = openSync('/dev/fuse', 'r+')
    } catch (cause) {
      throw new P2pfsError(
        'unsupported',
        `cannot open /dev/fuse: ${(cause as Error).message}; ` +
          'run as root with the fuse module loaded, or use --fuse-driver native',
        { cause },
      )
    }
    // Not default_permissions: who may open an image is decided by the daemon, and not by a mode.
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other,ro,nosuid,nodev'
    const child = spawn('mount', ['-i', '-t', 'fuse.p2pfs', '-o', options, 'p2pfs', mountPoint], {
      stdio: ['ignore', 'ignore', 'pipe', this.#fuse],
      env: toolEnvironment(),
    })
    let message = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (message += text))
    const [status] = (await once(child, 'close')) as [number | null]
    if (status !== 0)
      throw new P2pfsError('unavailable', `cannot mount FUSE on ${mountPoint}: ${message.trim()}`, { mountPoint })
    // Opening a path alone asks the daemon nothing.
    this.#pin = openSync(mountPoint, openPath)
    await limitReadAhead(mountPoint).catch((error: unknown) =>
      this.#log.warn('read-ahead of the kernel cannot be limited; cold starts fetch more than they need', { error }),
    )
  }

  async #unmountFuse(): Promise<void> {
    // Descriptors first: reads of files that are still open then fail instead of waiting for ever.
    for (const fd of [this.#fuse, this.#pin]) if (fd !== undefined) closeSync(fd)
    this.#fuse = undefined
    this.#pin = undefined
    await this.#detach(undefined)
  }

  async #unmount(): Promise<void> {
    await this.#unmountFuse()
    if (this.#lock !== undefined) closeSync(this.#lock)
    this.#lock = undefined
  }

  /**
   * Unmounts the FUSE filesystem and everything that is mounted of it.
   * @param why another supervisor has left it, and mounts that need none are taken over; logged for each other mount
   */
  async #detach(why: string | undefined): Promise<void> {
    const { mountPoint, mountRoots } = this.#options
    const own = await ownMounts([mountPoint, ...mountRoots])
    const lasting = new Set(why === undefined ? [] : lastingMounts(own, this.#options.lastingRoot))
    // In reverse order of mounting.
    for (const mount of own.toReversed()) {
      if (lasting.has(mount)) continue
      if (why !== undefined) this.#log.warn('mount removed', { directory: mount.mountPoint, why })
      const result = await runTool('umount', [mount.mountPoint])
      if (result.ok) continue
      const lazy = await runTool('umount', ['-l', mount.mountPoint])
      this.#log.warn(lazy.ok ? 'mount was in use; detached' : 'mount cannot be removed', {
        directory: mount.mountPoint,
        reason: result.message,
      })
    }
  }
}
