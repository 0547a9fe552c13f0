import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdir, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../protocol/errors.ts'
import type { Log } from './base/log.ts'
import { limitReadAhead } from './mount/placement/kernel-read-ahead.ts'
import { ownMounts } from './mount/placement/own-mounts.ts'
import { runTool } from './mount/placement/run-tool.ts'

/** What the daemon is told of the descriptors that it inherits. */
export const inherited = {
  /** Descriptor of /dev/fuse. */
  fuse: { fd: 3, variable: 'P2PFS_FUSE_FD' },
  /** Descriptor that the lock of the state directory belongs to: held as long as any process has it. */
  lock: { fd: 4 },
  /** Set where another daemon has served the mount before. */
  resumed: 'P2PFS_RESUMED',
} as const

/** From the daemon: it serves; or it has stopped as it was told, and ends now, whatever its exit status. */
export type FromDaemon = 'ready' | 'stopped'

/** sysexits.h, EX_CONFIG: starting the daemon again would not help. */
export const configExit = 78

/** Pauses before the daemon is started again: at once, then longer, milliseconds. */
const respawnDelaysMs = [0, 100, 500, 1_000, 2_000, 5_000] as const
/** A daemon that ran for this long was well: the next failure is a first one, milliseconds. */
const wellAfterMs = 30_000
/**
 * Memory of this size and more goes back to the system as soon as it is freed: glibc, mallopt(3), M_MMAP_THRESHOLD.
 * Without a fixed number glibc raises it to the size of chunks, and 100 MB of freed chunks stay with the process.
 * Bytes.
 */
const mmapThresholdBytes = 64 * 1024
/** How long a daemon may take to stop, milliseconds. */
const stopMs = 10_000

export interface SupervisorOptions {
  stateDir: string
  mountPoint: string
  /** Directories below which the daemon mounts what it needs. */
  mountRoots: readonly string[]
  /** The daemon's program and arguments. */
  command: readonly string[]
}

/**
 * Owns the kernel mount: opens /dev/fuse, mounts, and keeps a daemon running that serves it. While this process
 * lives a daemon may die or be replaced, and readers only wait.
 */
export class Supervisor {
  readonly #log: Log
  readonly #options: SupervisorOptions
  #lock: number | undefined
  #fuse: number | undefined
  #daemon: ChildProcess | undefined
  #stopping = false
  #wakeUp: (() => void) | undefined

  constructor({ log }: { log: Log }, options: SupervisorOptions) {
    this.#log = log
    this.#options = options
  }

  /**
   * Runs until it is told to stop.
   * @returns the exit status: 0, or that of a daemon which could not start
   * @throws conflict where another daemon has the state directory; unsupported, unavailable where FUSE cannot be
   *   mounted
   */
  async run(): Promise<number> {
    const { stateDir } = this.#options
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
    await this.#takeLock()
    await this.#mount()
    const onStop = (): void => this.stop()
    const onReplace = (): void => this.replace()
    process.on('SIGTERM', onStop).on('SIGINT', onStop).on('SIGHUP', onReplace)
    try {
      return await this.#keepRunning()
    } finally {
      process.off('SIGTERM', onStop).off('SIGINT', onStop).off('SIGHUP', onReplace)
      await this.#unmount()
    }
  }

  /** Ends the daemon and all its mounts; {@link run} then returns. */
  stop(): void {
    this.#stopping = true
    this.#wakeUp?.()
    this.#end()
  }

  /** Has another daemon take over, with whatever program stands there now; mounts stay. */
  replace(): void {
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
    for (let resumed = false; !this.#stopping; resumed = true) {
      const startedAt = performance.now()
      const { status, expected, wasReady } = await this.#runDaemon(resumed)
      if (this.#stopping) break
      if (!wasReady && !resumed && status === configExit) return configExit
      if (performance.now() - startedAt > wellAfterMs || expected) failures = 0
      // One that served before it died is needed back soon: readers wait.
      else if (wasReady) failures = Math.min(failures, 1)
      if (!expected) this.#log.warn('daemon ended unexpectedly; starting another, mounts wait', { status })
      const delayMs = expected ? 0 : respawnDelaysMs[Math.min(failures++, respawnDelaysMs.length - 1)]!
      await this.#pause(delayMs)
    }
    return 0
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

  async #runDaemon(resumed: boolean): Promise<{ status: number | string; expected: boolean; wasReady: boolean }> {
    const [program = '', ...argv] = this.#options.command
    const daemon = spawn(program, argv, {
      stdio: ['ignore', 'inherit', 'inherit', this.#fuse, this.#lock, 'ipc'],
      env: {
        MALLOC_MMAP_THRESHOLD_: String(mmapThresholdBytes),
        ...process.env,
        [inherited.fuse.variable]: String(inherited.fuse.fd),
        ...(resumed ? { [inherited.resumed]: '1' } : {}),
      },
      // Its own group: a Ctrl-C at the terminal is for the supervisor, which then stops the daemon.
      detached: true,
    })
    this.#daemon = daemon
    let expected = false
    let wasReady = false
    daemon.on('message', (message: FromDaemon) => {
      if (message === 'ready') wasReady = true
      else expected = true
    })
    const [code, signal] = (await once(daemon, 'exit')) as [number | null, string | null]
    this.#daemon = undefined
    return { status: code ?? signal ?? 'unknown', expected, wasReady }
  }

  /** The lock belongs to the open file, not to a process: flock(1) takes it on our descriptor, and it stays ours. */
  async #takeLock(): Promise<void> {
    const path = join(this.#options.stateDir, 'lock')
    const fd = openSync(path, 'a+', 0o600)
    const child = spawn('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', fd] })
    const [status] = (await once(child, 'exit')) as [number | null]
    if (status !== 0) {
      closeSync(fd)
      const pid = readFileSync(path, 'utf8').trim()
      throw new P2pfsError(
        'conflict',
        `another p2pfs daemon (pid ${pid || 'unknown'}) uses ${this.#options.stateDir}; stop it first, or use another --state-dir`,
        {
          stateDir: this.#options.stateDir,
        },
      )
    }
    await truncate(path)
    writeFileSync(fd, `${process.pid}\n`)
    this.#lock = fd
  }

  async #mount(): Promise<void> {
    const { mountPoint } = this.#options
    await this.#detach('left by a daemon that is gone')
    await mkdir(mountPoint, { recursive: true, mode: 0o755 })
    try {
      this.#fuse = openSync('/dev/fuse', 'r+')
    } catch (cause) {
      throw new P2pfsError(
        'unsupported',
        `cannot open /dev/fuse: ${(cause as Error).message}; run as root with the fuse module loaded, or use --fuse-driver native`,
        { cause },
      )
    }
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,ro,nosuid,nodev'
    const child = spawn('mount', ['-i', '-t', 'fuse.p2pfs', '-o', options, 'p2pfs', mountPoint], {
      stdio: ['ignore', 'ignore', 'pipe', this.#fuse],
    })
    let message = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (message += text))
    const [status] = (await once(child, 'close')) as [number | null]
    if (status !== 0)
      throw new P2pfsError('unavailable', `cannot mount FUSE on ${mountPoint}: ${message.trim()}`, { mountPoint })
    await limitReadAhead(mountPoint).catch((error: unknown) =>
      this.#log.warn('kernel reads ahead in the mount as it likes; cold starts fetch more than they need', { error }),
    )
  }

  async #unmount(): Promise<void> {
    // Descriptors first: what is still open then fails instead of waiting for ever.
    if (this.#fuse !== undefined) closeSync(this.#fuse)
    this.#fuse = undefined
    await this.#detach(undefined)
    if (this.#lock !== undefined) closeSync(this.#lock)
    this.#lock = undefined
  }

  /** Unmounts the FUSE filesystem and all that stands on it; `why` is logged where there should be none. */
  async #detach(why: string | undefined): Promise<void> {
    const { mountPoint, mountRoots } = this.#options
    // The last mounted first.
    for (const mount of (await ownMounts([mountPoint, ...mountRoots])).toReversed()) {
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
