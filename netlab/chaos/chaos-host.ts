import { readFileSync } from 'node:fs'
import { mkdir, rm, statfs, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MountRequest, MountResult, Status } from '../../node/control/api.ts'
import { isP2pfsError, type P2pfsError } from '../../protocol/errors.ts'
import { callControl, type ControlRequest } from '../hosts/control-call.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import { NodeProcess, type NodeProcessOptions } from '../hosts/node-process.ts'
import { run } from '../hosts/process.ts'
import { Outages } from './outages.ts'
import { mountsDirectory, type Format, type TrueImage } from './truth.ts'

/** A directory of the user that has mounts in it, and may be renamed. */
export class Parent {
  readonly #path: string
  isMoved = false

  constructor(path: string) {
    this.#path = path
  }

  get path(): string {
    return this.isMoved ? this.movedPath : this.#path
  }

  get homePath(): string {
    return this.#path
  }

  get movedPath(): string {
    return `${this.#path}-moved`
  }
}

/** A mount as it should stand. */
export interface ChaosMount {
  image: TrueImage
  format: Format
  request: MountRequest
  parent: Parent
  name: string
  /** The second drive, where there is one. */
  scratch?: string
  /** Raised by everything that may change what a reader sees, or end the mount. */
  generation: number
  /** Nobody begins to read while this is true. */
  isChanging: boolean
  /** Readers that are in it. */
  readers: number
  /** Files with the truth of what was written, by path in the tree. */
  written: Map<string, string>
  /** Paths that were written without success. */
  unknown: Set<string>
  /** The truth of the mark in the scratch drive. */
  scratchMark?: string
}

/** The result of a request. */
export type Answer<T> =
  { result: T } | { refused: P2pfsError } | { unanswered: string } | { hangs: string } | { gone: string }

/** A request takes seconds at most, and may wait for the read deadline, and for a daemon that is frozen. */
const requestTimeoutMs = 120_000
const answerTimeoutMs = 60_000
const pollMs = 100
/** Room for the images of a run several times over. */
const diskBytes = 3 * 2 ** 30

/** A host of the run: its daemon, its disk, and the mounts that should stand on it. */
export class ChaosHost {
  readonly host: LabHost
  readonly parents: Parent[]
  readonly mounts = new Map<string, ChaosMount>()
  /** Times in which the daemon was away or frozen. */
  readonly outages = new Outages()
  /** The last time at which the daemon was ended or went on after a pause (`performance.now()`). */
  disturbedAt = -Infinity
  frozenPid: number | undefined
  isFull = false
  /** Requests that wait for their turn. */
  pending = 0
  #queue: Promise<void> = Promise.resolve()
  #node: NodeProcess | undefined
  #options: NodeProcessOptions | undefined

  constructor(host: LabHost) {
    this.host = host
    this.parents = ['p0', 'p1'].map((name) => new Parent(join(mountsDirectory(host), name)))
  }

  get name(): string {
    return this.host.name
  }

  get stateDirectory(): string {
    return join(this.host.directory, 'state')
  }

  get node(): NodeProcess {
    if (this.#node === undefined) throw new TypeError(`the daemon of ${this.name} has not been started`)
    return this.#node
  }

  /** Puts the state directory on a disk of its own. Before the first {@link start}. */
  async useOwnDisk(image: string): Promise<void> {
    await mkdir(this.stateDirectory, { recursive: true })
    await run('truncate', [`--size=${diskBytes}`, image])
    await run('mke2fs', ['-F', '-q', '-t', 'ext4', '-m', '0', image])
    await run('mount', ['-o', 'loop', image, this.stateDirectory])
  }

  async start(options: NodeProcessOptions): Promise<void> {
    for (const { homePath } of this.parents) await mkdir(homePath, { recursive: true })
    this.#options = options
    this.#node = await NodeProcess.start(this.host, options)
  }

  /** Starts supervisor and daemon after both have ended. */
  async startAgain(): Promise<void> {
    this.disturbedAt = performance.now()
    this.#node = await NodeProcess.start(this.host, this.#options)
    this.disturbedAt = performance.now()
  }

  pathOf({ parent, name }: Pick<ChaosMount, 'parent' | 'name'>): string {
    return join(parent.path, name)
  }

  /** Tasks run one after the other; {@link pending} counts them. */
  async inTurn(task: () => Promise<void>): Promise<void> {
    this.pending++
    this.#queue = this.#queue.then(task).finally(() => this.pending--)
    await this.#queue
  }

  /** Sends a signal to the daemon. @returns its pid; undefined where there is no daemon at the moment */
  signalDaemon(signal: NodeJS.Signals): number | undefined {
    const pid = this.node.daemonPid
    if (pid === undefined) return undefined
    try {
      process.kill(pid, signal)
    } catch {
      return undefined
    }
    this.disturbedAt = performance.now()
    return pid
  }

  /** Lets a frozen daemon go on. */
  thaw(): void {
    if (this.frozenPid === undefined) return
    try {
      process.kill(this.frozenPid, 'SIGCONT')
    } catch {
      // It was killed meanwhile.
    }
    this.frozenPid = undefined
    this.disturbedAt = performance.now()
  }

  async mount(request: MountRequest): Promise<Answer<MountResult>> {
    return await this.#ask<MountResult>('POST /v1/mounts', request)
  }

  async umount(directory: string): Promise<Answer<object>> {
    return await this.#ask<object>(`DELETE /v1/mounts?${new URLSearchParams({ directory }).toString()}`)
  }

  async reset(directory: string): Promise<Answer<object>> {
    return await this.#ask<object>('POST /v1/mounts/reset', { directory })
  }

  /** @returns undefined if no daemon answers in time */
  async status(): Promise<Status | undefined> {
    const deadline = performance.now() + answerTimeoutMs
    while (performance.now() < deadline) {
      try {
        const signal = AbortSignal.timeout(answerTimeoutMs)
        return await callControl<Status>(this.node.controlSocket, 'GET /v1/status', undefined, { signal })
      } catch {
        await sleep(pollMs)
      }
    }
    return undefined
  }

  /** Whether the kernel has a mount on the directory. */
  stands(path: string): boolean {
    return this.kernelMounts().includes(path)
  }

  /** Mounts below the host's directory, as the kernel lists them. */
  kernelMounts(): string[] {
    return readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((path) => path.startsWith(`${this.host.directory}/`))
  }

  /** Takes all free room on the host's disk. */
  async fillDisk(): Promise<void> {
    for (let keptBytes = 0; keptBytes < 2 ** 24; keptBytes = Math.max(2 ** 20, keptBytes * 2)) {
      const { bavail, bsize } = await statfs(this.stateDirectory)
      const lengthBytes = bavail * bsize - keptBytes
      if (lengthBytes <= 0) return
      const filled = await run('fallocate', ['--length', String(lengthBytes), this.#filler]).then(
        () => true,
        () => false,
      )
      if (filled) return
      await truncate(this.#filler, 0).catch(() => undefined)
    }
  }

  async freeDisk(): Promise<void> {
    await rm(this.#filler, { force: true })
  }

  get #filler(): string {
    return join(this.stateDirectory, 'lost+found', 'filler')
  }

  /** Asks until a daemon has taken the request. */
  async #ask<T>(request: ControlRequest, body?: object): Promise<Answer<T>> {
    const deadline = performance.now() + answerTimeoutMs
    for (;;) {
      const signal = AbortSignal.timeout(requestTimeoutMs)
      try {
        return { result: await callControl<T>(this.node.controlSocket, request, body, { signal }) }
      } catch (error) {
        if (signal.aborted) return { hangs: `${request}: no answer within ${requestTimeoutMs} ms` }
        if (!isP2pfsError(error)) throw error
        if (error.code !== 'closed') return { refused: error }
        const { code } = (error.cause ?? {}) as NodeJS.ErrnoException
        if (code !== 'ECONNREFUSED' && code !== 'ENOENT') return { unanswered: error.message }
        if (performance.now() > deadline) return { gone: error.message }
        await sleep(pollMs)
      }
    }
  }
}
