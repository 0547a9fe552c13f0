import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Status } from '../../../node/control/api.ts'
import type { OperationName, RequestOf, ResultOf } from '../../../node/control/operations.ts'
import { call } from '../../../node/control/client.ts'

const program = fileURLToPath(new URL('../../../cli/p2pfs', import.meta.url))
/** A daemon on a busy machine starts within some seconds (ms). */
const startMs = 60_000
const pollMs = 20

/**
 * Runs in the new mount namespace. Other disks that lose their power are none of it: they could not be unmounted where they
 * are as long as it lives.
 */
const boot = `
  state=$1; shift
  while read -r _ path _; do
    case $path in *p2pfs-powerloss-*) case $state/ in "$path"/*) ;; *) umount -l "$path" ;; esac ;; esac
  done <<MOUNTS
$(cat /proc/self/mounts)
MOUNTS
  mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`

export interface DaemonOptions {
  /** A directory outside of the state directory, for the control socket and the directories that are mounted on. */
  directory: string
  stateDirectory: string
  /** The content of /proc/sys/kernel/random/boot_id for it. */
  bootId: string
  argv: readonly string[]
}

/**
 * A `p2pfs daemon` in a mount namespace of its own, where the boot's id is what the test says. Its mounts end with it,
 * as in a power loss. It may be killed at any time; {@link ready} says when it can be asked.
 */
export class DaemonUnderTest {
  readonly #directory: string
  readonly #control: string
  readonly #process: ChildProcess
  #log = ''
  /** The length of the log when a daemon was killed last. */
  #killedAt = 0
  #targets = 0
  #namespace: string | undefined

  constructor({ directory, stateDirectory, bootId, argv }: DaemonOptions) {
    this.#directory = directory
    this.#control = join(directory, 'control.sock')
    const bootFile = join(directory, 'boot-id')
    writeFileSync(bootFile, `${bootId}\n`)
    const command = [program, 'daemon', '--state-dir', stateDirectory, '--control', this.#control, ...argv]
    this.#process = spawn(
      'unshare',
      ['--mount', '--propagation=private', 'sh', '-c', boot, bootFile, stateDirectory, ...command],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    )
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#log += text))
  }

  /** All that it has logged. */
  get log(): string {
    return this.#log
  }

  get hasEnded(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null
  }

  /** Waits until it answers. @throws if it ends, or does not come up */
  async ready(): Promise<Status> {
    await this.serves()
    return await this.call('status', {})
  }

  /** A request, as the command line makes it. @throws the daemon's error */
  async call<Name extends OperationName>(name: Name, request: RequestOf<Name>): Promise<ResultOf<Name>> {
    return await call(name, request, { socket: this.#control })
  }

  /**
   * Mounts an image as a tree while the task runs.
   * @param task gets the directory where this process finds the tree
   */
  async whileMounted<T>(image: string, format: string, task: (directory: string) => Promise<T>): Promise<T> {
    const directory = join(this.#directory, `target-${process.pid}-${this.#targets++}`)
    mkdirSync(directory, { recursive: true })
    await this.call('mount', { image, directory, as: 'tree', format })
    const done = await task(join('/proc', `${this.#process.pid}`, 'root', directory))
    await this.call('umount', { directory })
    return done
  }

  /** Waits until the log has such a message. */
  async logged(message: string): Promise<void> {
    await this.#until(`log of "${message}"`, () => this.#log.includes(message))
  }

  /** Waits until a daemon serves, after {@link killDaemon} another one. */
  async serves(): Promise<void> {
    await this.#until('daemon that serves', () => this.#log.includes('"daemon ready"', this.#killedAt))
  }

  async #until(what: string, isSo: () => boolean): Promise<void> {
    for (const deadline = performance.now() + startMs; !isSo();) {
      if (this.hasEnded) throw new Error(`daemon ended: ${this.#log}`)
      if (performance.now() > deadline) throw new Error(`no ${what} in time: ${this.#log}`)
      await sleep(pollMs)
    }
  }

  /** Kills the daemon, but not its supervisor. @returns whether there was one */
  killDaemon(): boolean {
    const { pid } = this.#process
    try {
      const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean)
      const daemon = children.find((child) => readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('main.ts'))
      if (daemon === undefined) return false
      this.#killedAt = this.#log.length
      return process.kill(Number(daemon), 'SIGKILL')
    } catch {
      return false
    }
  }

  /** Kills supervisor, daemon and all that they have started. */
  async killAll(): Promise<void> {
    const supervisor = this.#process
    // Neither notices the other's end.
    if (!this.hasEnded) supervisor.kill('SIGSTOP')
    const namespace = mountNamespaceOf(supervisor.pid!)
    // One that has only begun is still in that of the test.
    if (!this.hasEnded && namespace !== mountNamespaceOf('self')) this.#namespace = namespace
    for (const pid of this.#others()) kill(pid)
    if (!this.hasEnded) {
      const ended = once(supervisor, 'exit')
      supervisor.kill('SIGKILL')
      await ended
    }
    // Tools that wait in the kernel for FUSE end after the supervisor has.
    for (let others = this.#others(); others.length > 0; others = this.#others()) {
      for (const pid of others) kill(pid)
      await sleep(pollMs)
    }
  }

  /** Processes in the namespace besides the supervisor. */
  #others(): number[] {
    const namespace = this.#namespace
    if (namespace === undefined) return []
    const pids = readdirSync('/proc').map(Number).filter(Number.isInteger)
    return pids.filter((pid) => pid !== this.#process.pid && mountNamespaceOf(pid) === namespace)
  }
}

/** It may have ended by itself. */
function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** @returns undefined for a process that has ended */
function mountNamespaceOf(process: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${process}/ns/mnt`)
  } catch {
    return undefined
  }
}
