import type { ChildProcess } from 'node:child_process'
import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, open, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { MountResult, SeedResult, Status } from '../../node/control/api.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { formatRegionKey } from '../../protocol/region-key.ts'
import { eventually } from '../../test/support/deadline.ts'
import type { LabHost } from './lab-host.ts'
import { exited, lastLines, run } from './process.ts'

/** The command under test, as users run it. */
const command = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'cli', 'p2pfs')
/** The daemon's default. */
const peerPort = 4100
/** A limit for a busy machine; on an idle one a daemon starts within a second. */
const startTimeoutMs = 30_000
/** A supervisor that takes longer to stop is killed. */
const stopTimeoutMs = 15_000
const quotedLogLines = 30

export interface NodeProcessOptions {
  /** Off where it is not given: what is measured is what was asked for. */
  hotImages?: 'on' | 'off'
  /** How soon hot images are placed, and how often their tags are looked at, such as `1s`. */
  hotDelay?: string
  hotTagInterval?: string
  region?: string
  /** Nodes to connect to first. */
  bootstrap?: readonly NodeProcess[]
  /** Registries (`HOST:PORT`) that are reached over plain HTTP. */
  insecureRegistries?: readonly string[]
  /** Registries that it imports from for peers, whatever else it has for them; by default those over plain HTTP. */
  peerRegistries?: readonly string[]
  /** Peer ids of hosts whose published indexes are accepted. */
  trustedIndexKeys?: readonly string[]
  /** Members of a region that is connected each to each, at most; the daemon's own bound where it is not given. */
  fullMesh?: number
  /** Added to the environment of this process. */
  env?: NodeJS.ProcessEnv
  signal?: AbortSignal
}

/** `p2pfs daemon` on a host of the lab, driven through the command line as an operator would. */
export class NodeProcess implements AsyncDisposable {
  readonly host: LabHost
  readonly stateDirectory: string
  /** The daemon's control socket. */
  readonly controlSocket: string
  readonly #logPath: string
  readonly #process: ChildProcess

  private constructor(host: LabHost, process: ChildProcess, logPath: string) {
    this.host = host
    this.stateDirectory = stateDirectoryOf(host)
    this.controlSocket = controlOf(host)
    this.#logPath = logPath
    this.#process = process
  }

  /**
   * Starts the daemon and waits until it answers. It takes over the state directory of the host's earlier daemon.
   *
   * @throws timeout, with the end of its log, if it does not come up
   */
  static async start(host: LabHost, options: NodeProcessOptions = {}): Promise<NodeProcess> {
    const { region = 'lab', bootstrap = [], insecureRegistries = [], trustedIndexKeys = [], env = {}, signal } = options
    const { peerRegistries = insecureRegistries, hotImages = 'off', hotDelay, hotTagInterval, fullMesh } = options
    const addresses = await Promise.all(
      bootstrap.map(async (node) => await node.peerAddress({ ...(signal && { signal }) })),
    )
    const flags = {
      '--state-dir': [stateDirectoryOf(host)],
      '--control': [controlOf(host)],
      '--region': [region],
      '--region-key-file': [regionKeyFileOf(host)],
      '--listen': [`/ip4/${host.address}/tcp/${peerPort}`],
      '--bootstrap': addresses.length === 0 ? [] : [addresses.join(',')],
      '--insecure-registry': insecureRegistries,
      '--peer-registry': peerRegistries,
      '--trust-index-key': trustedIndexKeys,
      '--full-mesh': fullMesh === undefined ? [] : [String(fullMesh)],
      '--hot-images': [hotImages],
      '--hot-delay': hotDelay === undefined ? [] : [hotDelay],
      '--hot-tag-interval': hotTagInterval === undefined ? [] : [hotTagInterval],
      '--name': [host.name],
    }
    await mkdir(stateDirectoryOf(host), { recursive: true, mode: 0o700 })
    await writeFile(regionKeyFileOf(host), formatRegionKey(labRegionKey(region)), { mode: 0o600 })
    const logPath = join(host.directory, 'daemon.log')
    await using log = await open(logPath, 'a')
    const args = Object.entries(flags).flatMap(([flag, values]) => values.flatMap((value) => [flag, value]))
    const child = await host.start(command, ['daemon', ...args], {
      stdio: ['ignore', log.fd, log.fd],
      env: { ...process.env, ...env },
    })
    const node = new NodeProcess(host, child, logPath)
    await node.#withLog(async () => {
      await node.#whenStatus('the daemon answers', () => true, { timeoutMs: startTimeoutMs, ...(signal && { signal }) })
    })
    return node
  }

  /** Starts a daemon that knows nothing: the state of the host's earlier daemon is removed first. */
  static async startEmpty(host: LabHost, options: NodeProcessOptions = {}): Promise<NodeProcess> {
    await discardState(host)
    await run('sync', [])
    return await NodeProcess.start(host, options)
  }

  /**
   * Runs `p2pfs ARGS` on the host.
   * @returns its output.
   * @throws unavailable, with the end of the daemon's log, if it fails
   */
  async cli(args: readonly string[], { signal }: { signal?: AbortSignal } = {}): Promise<string> {
    return await this.#withLog(async () => await this.#cli(args, signal))
  }

  async seed(image: string, options: { signal?: AbortSignal } = {}): Promise<SeedResult> {
    return JSON.parse(await this.cli(['seed', image, '--json'], options)) as SeedResult
  }

  async mount(image: string, directory: string, options: { signal?: AbortSignal } = {}): Promise<MountResult> {
    await mkdir(directory, { recursive: true })
    return JSON.parse(await this.cli(['mount', image, directory, '--json'], options)) as MountResult
  }

  async unmount(directory: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.cli(['umount', directory], options)
  }

  async status(options: { signal?: AbortSignal } = {}): Promise<Status> {
    return JSON.parse(await this.cli(['status', '--json'], options)) as Status
  }

  /** Waits for `condition` to hold of the status. @throws timeout */
  async whenStatus(
    what: string,
    condition: (status: Status) => boolean,
    options: { timeoutMs: number; signal?: AbortSignal },
  ): Promise<Status> {
    return await this.#withLog(async () => await this.#whenStatus(what, condition, options))
  }

  /** A multiaddr at which the other hosts reach it. */
  async peerAddress(options: { signal?: AbortSignal } = {}): Promise<string> {
    const { addresses, peerId } = await this.status(options)
    const address = addresses.find((candidate) => candidate.includes(`/${this.host.address}/`))
    if (address === undefined)
      throw new P2pfsError('missing', `${this.host.name} listens on none of its addresses`, { addresses })
    return address.includes('/p2p/') ? address : `${address}/p2p/${peerId}`
  }

  /** Kills the daemon, but not its supervisor. @returns the pid of the killed daemon */
  async killDaemon(options: { signal?: AbortSignal } = {}): Promise<number> {
    return await this.signalDaemon('SIGKILL', options)
  }

  /** Sends a signal to the daemon, but not to its supervisor. @returns the daemon's pid */
  async signalDaemon(signal: NodeJS.Signals, options: { signal?: AbortSignal } = {}): Promise<number> {
    const { daemonPid } = await this.status(options)
    process.kill(daemonPid, signal)
    return daemonPid
  }

  /** The daemon's pid, as the kernel lists the supervisor's children; undefined while there is none. */
  get daemonPid(): number | undefined {
    const { pid } = this.#process
    try {
      const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean)
      return children.map(Number).find((child) => readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('main.ts'))
    } catch {
      return undefined
    }
  }

  /** Sends a signal to the supervisor. SIGHUP has it replace the daemon. */
  signalSupervisor(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  /** Kills supervisor and daemon at once, as a power cut would. The mounts are left to the next {@link start}. */
  async killAll(): Promise<void> {
    const { daemonPid } = this
    this.#process.kill('SIGKILL')
    if (daemonPid !== undefined) process.kill(daemonPid, 'SIGKILL')
    await exited(this.#process)
  }

  /** The log so far. */
  async log(): Promise<string> {
    return await readFile(this.#logPath, 'utf8')
  }

  /** Forgets the peak of the daemon's memory: it begins anew at what is resident now (clear_refs of proc(5)). */
  async resetPeakMemory(options: { signal?: AbortSignal } = {}): Promise<void> {
    const { daemonPid } = await this.status(options)
    await writeFile(`/proc/${daemonPid}/clear_refs`, '5')
  }

  /** Peak resident memory of the daemon process that runs now, bytes (VmHWM of proc(5)). */
  async peakMemoryBytes(options: { signal?: AbortSignal } = {}): Promise<number> {
    const { daemonPid } = await this.status(options)
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(await readFile(`/proc/${daemonPid}/status`, 'utf8'))
    if (line === null) throw new P2pfsError('missing', `the kernel does not account for process ${daemonPid}`)
    return Number(line[1]) * 1024
  }

  /** Stops supervisor and daemon as an init system would. @throws timeout if they had to be killed */
  async stop(): Promise<void> {
    const child = this.#process
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGTERM')
    let late = false
    const timer = setTimeout(() => {
      late = true
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    }, stopTimeoutMs)
    await exited(child)
    clearTimeout(timer)
    if (late)
      throw new P2pfsError('timeout', `${this.host.name} did not stop; its log ends with\n${await this.#logEnd()}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #cli(args: readonly string[], signal: AbortSignal | undefined): Promise<string> {
    const env = { ...process.env, P2PFS_CONTROL: this.controlSocket }
    return (await this.host.run(command, args, { env, ...(signal && { signal }) })).stdout.toString()
  }

  async #whenStatus(
    what: string,
    condition: (status: Status) => boolean,
    { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal },
  ): Promise<Status> {
    const probe = async (): Promise<Status | undefined> => {
      if (this.#process.exitCode !== null)
        throw new P2pfsError('closed', `p2pfs daemon ended with ${this.#process.exitCode}`)
      const status = JSON.parse(await this.#cli(['status', '--json'], signal)) as Status
      return condition(status) ? status : undefined
    }
    return await eventually(`${this.host.name}: ${what}`, probe, { timeoutMs, ...(signal && { signal }) })
  }

  async #withLog<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await action()
    } catch (cause) {
      if (!(cause instanceof P2pfsError)) throw cause
      throw new P2pfsError(
        cause.code,
        `${cause.message}\nThe log of ${this.host.name} ends with\n${await this.#logEnd()}`,
        { cause },
      )
    }
  }

  async #logEnd(): Promise<string> {
    return lastLines(await this.log(), quotedLogLines)
  }
}

/**
 * Takes the state away. Its files are emptied and stay until the lab ends: an ext4 without a journal tries the inodes that
 * were freed in the last minutes one by one whenever it makes a file (`recently_deleted` in fs/ext4/ialloc.c), so a daemon
 * that writes chunks after others were deleted would be measured at half its speed.
 */
export async function discardState(host: LabHost): Promise<void> {
  const former = join(host.directory, 'former')
  await mkdir(former, { recursive: true })
  const discarded = await mkdtemp(join(former, 'state-'))
  try {
    await rename(stateDirectoryOf(host), discarded)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  await run('find', [discarded, '-xdev', '-type', 'f', '-size', '+0', '-exec', 'truncate', '-s', '0', '{}', '+'])
}

function stateDirectoryOf(host: LabHost): string {
  return join(host.directory, 'state')
}

function regionKeyFileOf(host: LabHost): string {
  return join(host.directory, 'region.key')
}

/** The key of a region of the lab: all its hosts have the same, and each lab can be entered by its tests. */
export function labRegionKey(region: string): Uint8Array {
  return hash('sha256', `netlab region ${region}`, 'buffer')
}

function controlOf(host: LabHost): string {
  return join(host.directory, 'control.sock')
}
