import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { makePrivateDirectory } from '../base/private-directory.ts'
import { systemError } from '../base/system-error.ts'
import { toolEnvironment } from '../mount/placement/run-tool.ts'
import { isAnonymousMemory } from './anonymous-memory.ts'
import { inherited, type Descriptors } from './descriptors.ts'
import { failedAttempts, takeOver, type Owner } from './take-over.ts'

/** How long a process that was told to end may take before it is killed (ms). */
export const stopMs = 10_000
/** A record with the longest path of a socket, and more than any that an earlier version has written. */
const recordBytes = 512
/** How often a process that ends is looked at (ms). */
const pollMs = 20

/** The record that a supervisor writes into its lock, for the next supervisor. */
export interface SupervisorRecord {
  pid: number
  /** Path of its control socket. */
  control: string
  descriptors: Descriptors
}

/**
 * The two locks of a state directory. `lock` is held as long as a daemon or a supervisor lives: it is handed on, so that a
 * supervisor which takes over never lets go of it. `supervisor.lock` is held by one supervisor while it lives, and never
 * handed on. A lock belongs to an open file, not to a process: flock(1) takes it on our descriptor.
 */
export class StateLocks {
  readonly #log: Log
  readonly #stateDir: string
  #own: number | undefined
  #state: number | undefined

  constructor({ log }: { log: Log }, { stateDir }: { stateDir: string }) {
    this.#log = log
    this.#stateDir = stateDir
  }

  /** Descriptor of the lock that is handed on. */
  get fd(): number | undefined {
    return this.#state
  }

  get #path(): string {
    return join(this.#stateDir, 'lock')
  }

  /**
   * Makes the state directory and takes both locks. Where a daemon has outlived its supervisor, this process starts anew with
   * the descriptors of that daemon, which then ends; so it does where `replaces` is set and a supervisor lives.
   * @param received descriptors that were handed to this process
   * @returns the record of the supervisor that came before, if this one has taken over from it
   * @throws conflict if another supervisor has the state directory; invalid, unavailable if it cannot be used
   */
  async take(received: Descriptors, { replaces }: { replaces: boolean }): Promise<SupervisorRecord | undefined> {
    const failed = failedAttempts(process.env)
    await makePrivateDirectory(this.#stateDir).catch((error: unknown) => {
      throw this.#unusable(error)
    })
    const isTaken = received.lock !== undefined && isFile(readLink(process.pid, received.lock), this.#path)
    if (received.lock !== undefined && !isTaken)
      throw new P2pfsError(
        'invalid',
        `this supervisor was given the mounts of another state directory than ${this.#stateDir}; ` +
          'use that one, or end its mounts first: p2pfs daemon --stop-mounts --state-dir DIR',
      )
    const own = this.#open('supervisor.lock')
    if (!(await lockNow(own))) await this.#replaceSupervisor(own, { replaces, isTaken, failed })
    this.#own = own
    const record = this.#record()
    if (isTaken) {
      const [daemon] = this.#daemons()
      // A service manager may have dropped one of them.
      if (daemon !== undefined && (received.fuse === undefined || received.control === undefined))
        takeOver(daemon, fileOf(this.#path), failed)
      this.#state = received.lock
      return record
    }
    this.#state = await this.#takeState(failed)
    return undefined
  }

  /** Ends other supervisors and daemons of the state directory, and takes both locks. Their mounts end. */
  async takeByForce(): Promise<void> {
    await makePrivateDirectory(this.#stateDir).catch((error: unknown) => {
      throw this.#unusable(error)
    })
    this.#own = this.#open('supervisor.lock')
    const pid = this.#record()?.pid
    if (!(await lockNow(this.#own))) await this.#endSupervisor(this.#own, pid, 'SIGTERM')
    await this.endDaemons()
    this.#state = this.#open('lock')
    if (!(await lockNow(this.#state, stopMs))) throw this.#inUse('conflict', undefined)
  }

  /** Says in the lock what a supervisor that takes over later has to know. */
  async write(record: SupervisorRecord): Promise<void> {
    // Over the one that is there: a file that was made empty may find the disk full.
    await using file = await open(join(this.#stateDir, 'supervisor.lock'), 'r+')
    await file.write(`${JSON.stringify(record)}\n`.padStart(recordBytes), 0)
  }

  /** Ends daemons that have outlived their supervisor; what they have not answered waits for the next. */
  async endDaemons(): Promise<void> {
    for (const { pid } of this.#daemons()) {
      this.#log.info('daemon of another supervisor is being replaced', { pid })
      await this.#end(pid, 'SIGTERM')
    }
  }

  release(): void {
    for (const fd of [this.#state, this.#own]) if (fd !== undefined) closeSync(fd)
    this.#state = undefined
    this.#own = undefined
  }

  async #replaceSupervisor(
    own: number,
    { replaces, isTaken, failed }: { replaces: boolean; isTaken: boolean; failed: { count: number; reason: string } },
  ): Promise<void> {
    const record = this.#record()
    if (!replaces) throw this.#inUse('conflict', record?.pid)
    if (!isTaken) {
      const owner = this.#daemons()[0] ?? record
      // It is still starting, and has nothing yet.
      if (owner?.descriptors.lock === undefined) throw this.#inUse('unavailable', record?.pid)
      takeOver(owner, fileOf(this.#path), failed)
    }
    this.#log.info('another supervisor is being replaced; its mounts stay', { pid: record?.pid })
    await this.#endSupervisor(own, record?.pid, 'SIGUSR2')
  }

  async #endSupervisor(own: number, pid: number | undefined, signal: NodeJS.Signals): Promise<void> {
    if (pid !== undefined) kill(pid, signal)
    // A supervisor that ends its mounts waits for its daemon first.
    if (await lockNow(own, 2 * stopMs)) return
    if (pid !== undefined) kill(pid, 'SIGKILL')
    if (!(await lockNow(own, stopMs))) throw this.#inUse('conflict', pid)
  }

  /** Takes the lock that is handed on, or takes over from a daemon that has it. */
  async #takeState(failed: { count: number; reason: string }): Promise<number> {
    const fd = this.#open('lock')
    for (const endMs = performance.now() + stopMs; ;) {
      if (await lockNow(fd)) return fd
      const [daemon] = this.#daemons()
      if (daemon !== undefined) {
        this.#log.info('daemon has lost its supervisor; this one takes over', { pid: daemon.pid })
        takeOver(daemon, fileOf(this.#path), failed)
      }
      if (performance.now() > endMs) throw this.#inUse('conflict', undefined)
      await sleep(pollMs)
    }
  }

  /** Daemons of the state directory: they have its lock where each daemon has it, on whatever path they see it. */
  #daemons(): Owner[] {
    const { fuse, lock, control, callers } = inherited
    return (
      readdirSync('/proc')
        .map(Number)
        .filter((pid) => pid > 0 && pid !== process.pid && isFile(readLink(pid, lock.fd), this.#path))
        // A supervisor that was given descriptors in another order is none.
        .filter((pid) => hasFuse(pid, fuse.fd))
        .map((pid) => ({
          pid,
          descriptors: {
            fuse: fuse.fd,
            lock: lock.fd,
            control: control.fd,
            // One of an earlier version has something else there, or nothing.
            ...(isAnonymousMemory(pid, callers.fd) && { callers: callers.fd }),
          },
        }))
    )
  }

  async #end(pid: number, signal: NodeJS.Signals): Promise<void> {
    kill(pid, signal)
    const isThere = (): boolean => isFile(readLink(pid, inherited.lock.fd), this.#path)
    for (const endMs = performance.now() + stopMs; isThere() && performance.now() < endMs;) await sleep(pollMs)
    if (!isThere()) return
    this.#log.warn('daemon does not stop; it is killed', { pid })
    kill(pid, 'SIGKILL')
    for (const endMs = performance.now() + stopMs; isThere() && performance.now() < endMs;) await sleep(pollMs)
  }

  #record(): SupervisorRecord | undefined {
    try {
      return JSON.parse(readFileSync(join(this.#stateDir, 'supervisor.lock'), 'utf8')) as SupervisorRecord
    } catch {
      return undefined
    }
  }

  #open(name: string): number {
    try {
      return openSync(join(this.#stateDir, name), 'a+', 0o600)
    } catch (error) {
      throw this.#unusable(error)
    }
  }

  #unusable(error: unknown): P2pfsError {
    return systemError(`cannot use the state directory ${this.#stateDir}`, error)
  }

  #inUse(code: 'conflict' | 'unavailable', pid: number | undefined): P2pfsError {
    return new P2pfsError(
      code,
      `another p2pfs daemon (pid ${pid ?? 'unknown'}) uses ${this.#stateDir}; take over from it with --replace, stop it ` +
        'first, or use another --state-dir',
      { stateDir: this.#stateDir },
    )
  }
}

/** @param waitMs how long to wait for it; not at all by default */
async function lockNow(fd: number, waitMs?: number): Promise<boolean> {
  const waitOptions = waitMs === undefined ? ['-n'] : ['-w', String(waitMs / 1000)]
  const child = spawn('flock', [...waitOptions, '3'], {
    stdio: ['ignore', 'ignore', 'ignore', fd],
    env: toolEnvironment(),
  })
  const [status] = (await once(child, 'exit')) as [number | null]
  return status === 0
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** A descriptor of a process, as a path, if that leads to a file named `lock`: other ones are not touched, as a mount may hang. */
function readLink(pid: number, fd: number): string | undefined {
  const path = `/proc/${pid}/fd/${fd}`
  try {
    return readlinkSync(path).endsWith('/lock') ? path : undefined
  } catch {
    return undefined
  }
}

function hasFuse(pid: number, fd: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`) === '/dev/fuse'
  } catch {
    return false
  }
}

function isFile(path: string | undefined, file: string): boolean {
  try {
    return path !== undefined && fileOf(path) === fileOf(file)
  } catch {
    return false
  }
}

/** Names a file by device and inode. */
function fileOf(path: string): string {
  const { dev, ino } = statSync(path)
  return `${dev}:${ino}`
}
