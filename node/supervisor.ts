import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import type { Log } from './base/log.ts'
import { ControlSocket } from './control/socket.ts'
import { exitStatus } from './base/exit-status.ts'
import { openAnonymousMemory } from './service/anonymous-memory.ts'
import { inherited, type Descriptors } from './service/descriptors.ts'
import { FuseMount, type FuseMountOptions } from './service/fuse-mount.ts'
import type { ServiceManager } from './service/service-manager.ts'
import { StateLocks, stopMs, type SupervisorRecord } from './service/state-locks.ts'

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
/** How often a daemon is started that dies before it has ever served. */
const maxFirstStarts = 5
/**
 * How long mounts wait for a daemon that does not start (ms), for instance after an upgrade that failed: time for a
 * person to mend it. After that they end, as a reader should not wait for ever.
 */
const giveUpMs = 10 * 60_000

export interface SupervisorOptions extends FuseMountOptions {
  /** Path of the control socket. */
  control: string
  /** Group that may use it; empty for none. */
  controlGroup: string
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
 * Owns the descriptors that outlive a daemon: the kernel mount's on /dev/fuse, and the control socket. Keeps a
 * daemon running that serves both. While this process lives, a daemon may die or be replaced: readers and requests
 * only wait. When it ends or is killed, the daemon serves on, until another supervisor takes over from it.
 */
export class Supervisor {
  readonly #log: Log
  readonly #manager: ServiceManager
  readonly #options: SupervisorOptions
  readonly #control: ControlSocket
  readonly #locks: StateLocks
  readonly #fuse: FuseMount
  #controlFd: number | undefined
  /** Memory in which daemons leave credentials of mounts to each other; this process does not look into it. */
  #callersFd: number | undefined
  #daemon: ChildProcess | undefined
  /** Daemons that were replaced: by order, and because they ended. */
  readonly #replaced = { ordered: 0, unexpected: 0 }
  #stopping = false
  /** It was told to end, and to leave what users have mounted. */
  #isLeaving = false
  /** The mounts are those of another supervisor, before or after this one. */
  #keepsMounts = false
  readonly #started = Promise.withResolvers<void>()
  readonly #left = Promise.withResolvers<number>()
  #wakeUp: (() => void) | undefined

  constructor({ log, manager }: { log: Log; manager: ServiceManager }, options: SupervisorOptions) {
    this.#log = log
    this.#manager = manager
    this.#options = options
    this.#control = new ControlSocket(options.control, undefined, options.controlGroup)
    this.#locks = new StateLocks({ log }, options)
    this.#fuse = new FuseMount({ log }, options)
  }

  /**
   * Runs until it is told to stop.
   * @param received descriptors of another supervisor, whose mounts stay
   * @param options `replaces`: whether one that lives is to end
   * @returns the exit status: 0, or that of a daemon which could not start
   * @throws conflict if another daemon has the state directory or the control socket; invalid, unsupported or
   * unavailable if the state directory, the control socket or FUSE cannot be used
   */
  async run(received: Descriptors, { replaces }: { replaces: boolean }): Promise<number> {
    const before = await this.#locks.take(received, { replaces })
    const onStop = (): void => this.stop()
    const onReplace = (): void => this.replace()
    const onLeave = (): void => void this.leave()
    process.on('SIGTERM', onStop).on('SIGINT', onStop).on('SIGHUP', onReplace).on('SIGUSR2', onLeave)
    // Until it has ended the daemon of the other one, which serves on if this one fails.
    this.#keepsMounts = received.lock !== undefined
    try {
      await this.#takeControl(received.control, before)
      const isAdopted = received.fuse !== undefined && (await this.#fuse.adopt(received.fuse))
      if (!isAdopted) await this.#fuse.mount()
      this.#callersFd = received.callers ?? (await openAnonymousMemory({ log: this.#log }))
      const descriptors = this.#descriptors()
      await this.#locks.write({ pid: process.pid, control: this.#options.control, descriptors })
      await this.#manager.store(descriptors)
      if (received.lock !== undefined) await this.#locks.endDaemons()
      this.#keepsMounts = false
      this.#started.resolve()
      const status = await Promise.race([this.#keepRunning(isAdopted), this.#left.promise])
      // A mount was made in the moment in which there seemed to be none.
      if (this.#isLeaving && !this.#keepsMounts && (await this.#fuse.hasUsers())) this.#giveAway()
      return status
    } finally {
      if (!this.#keepsMounts) await this.#endMounts()
      process.off('SIGTERM', onStop).off('SIGINT', onStop).off('SIGHUP', onReplace).off('SIGUSR2', onLeave)
    }
  }

  /** Ends the daemon and all its mounts; {@link run} then returns. */
  stop(): void {
    this.#stopping = true
    this.#wakeUp?.()
    this.#end()
  }

  /** Ends, and leaves the daemon and its mounts to another supervisor; ends both if nothing is mounted for a user. */
  async leave(): Promise<void> {
    // Before that the mounts may be nobody's.
    await this.#started.promise
    this.#isLeaving = true
    if (await this.#fuse.hasUsers()) this.#giveAway()
    else this.stop()
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
    void this.#manager.reloading()
    this.#end()
  }

  #descriptors(): Descriptors {
    return {
      ...(this.#fuse.fd === undefined ? {} : { fuse: this.#fuse.fd }),
      ...(this.#locks.fd === undefined ? {} : { lock: this.#locks.fd }),
      ...(this.#controlFd === undefined ? {} : { control: this.#controlFd }),
      ...(this.#callersFd === undefined ? {} : { callers: this.#callersFd }),
    }
  }

  async #takeControl(received: number | undefined, before: SupervisorRecord | undefined): Promise<void> {
    if (received !== undefined) {
      if (before?.control === this.#options.control && (await this.#control.adopt())) {
        this.#controlFd = received
        return
      }
      closeSync(received)
    }
    await this.#control.prepare()
    this.#controlFd = await this.#control.bind()
  }

  /** A daemon holds what is mounted; it needs no supervisor. */
  #giveAway(): void {
    this.#keepsMounts = true
    this.#stopping = true
    this.#wakeUp?.()
    if (this.#daemon === undefined) void this.#runDaemon(true)
    // This process can end while its child lives.
    this.#daemon?.unref()
    if (this.#daemon?.connected === true) this.#daemon.disconnect()
    this.#log.info('supervisor ends; its daemon serves the mounts until another supervisor takes over', {
      pid: this.#daemon?.pid,
    })
    this.#left.resolve(0)
  }

  async #endMounts(): Promise<void> {
    await this.#manager.stopping('mounts end')
    await this.#control.remove()
    // While anybody has the descriptor of /dev/fuse, umount(8) waits for an answer.
    await this.#manager.forget(Object.keys(this.#descriptors()))
    await this.#fuse.unmount()
    if (this.#callersFd !== undefined) closeSync(this.#callersFd)
    this.#callersFd = undefined
    this.#locks.release()
  }

  #end(): void {
    const daemon = this.#daemon
    if (daemon === undefined) return
    daemon.kill('SIGTERM')
    const timer = setTimeout(() => {
      this.#log.warn('daemon does not stop; it is killed', { pid: daemon.pid })
      daemon.kill('SIGKILL')
    }, stopMs)
    daemon.once('exit', () => clearTimeout(timer))
  }

  /** @param wasServed whether another daemon has served the mount before the first of this supervisor */
  async #keepRunning(wasServed: boolean): Promise<number> {
    let failures = 0
    /** The last time at which a daemon was seen serving; undefined before the first one has. */
    let servedMs = wasServed ? performance.now() : undefined
    for (let resumed = wasServed; !this.#stopping; resumed = true) {
      const isFresh = await this.#fuse.mountAgain()
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
      if (!expected) {
        this.#log.warn('daemon ended unexpectedly; another is started, mounts wait', { status })
        void this.#manager.status('daemon ended unexpectedly; mounts wait for another')
      }
      await this.#pause(expected ? 0 : respawnDelaysMs[Math.min(failures++, respawnDelaysMs.length - 1)]!)
    }
    return 0
  }

  /** Whether a daemon that ended before it served is the last one. */
  async #isFinal(status: number | string, starts: number, servedMs: number | undefined): Promise<boolean> {
    // It said why, and nobody waits for it.
    const isVerdict = status === exitStatus.tryAgain || status === exitStatus.needsChange
    if (isVerdict && !(await this.#fuse.hasUsers())) return true
    return servedMs === undefined ? starts >= maxFirstStarts : performance.now() - servedMs > giveUpMs
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
      stdio: ['ignore', 'inherit', 'inherit', this.#fuse.fd, this.#locks.fd, this.#controlFd, 'ipc', this.#callersFd],
      env: {
        MALLOC_MMAP_THRESHOLD_: String(mmapThresholdBytes),
        MALLOC_ARENA_MAX: String(maxArenas),
        ...process.env,
        NOTIFY_SOCKET: undefined,
        [inherited.fuse.variable]: String(inherited.fuse.fd),
        [inherited.control.variable]: this.#control.temporaryPath,
        ...(this.#callersFd === undefined ? {} : { [inherited.callers.variable]: String(inherited.callers.fd) }),
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
      if (message === 'ready') {
        wasReady = true
        void this.#manager.ready(`daemon ${daemon.pid} serves`)
      } else if (message === 'stopped') expected = true
      else verdict = message.cannotStart
    })
    const [code, signal] = (await once(daemon, 'exit')) as [number | null, string | null]
    this.#daemon = undefined
    return { status: verdict ?? code ?? signal ?? 'unknown', expected, wasReady }
  }
}
