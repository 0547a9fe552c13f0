import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Status } from '../../node/control/api.ts'
import { parsePrometheusText } from '../support/prometheus-text.ts'

const program = fileURLToPath(new URL('../../cli/p2pfs', import.meta.url))

export interface CliResult {
  status: number
  stdout: string
  stderr: string
}

/** A real `p2pfs daemon` on loopback, with a state directory of its own. */
export class DaemonProcess {
  readonly directory: string
  readonly control: string
  readonly #options: string[]
  #process: ChildProcess
  #log = ''

  private constructor(directory: string, options: string[]) {
    this.directory = directory
    this.control = join(directory, 'control.sock')
    this.#options = options
    this.#process = this.#spawn()
  }

  #spawn(flags: readonly string[] = []): ChildProcess {
    const child = spawn(
      program,
      [
        'daemon',
        ...flags,
        '--state-dir',
        join(this.directory, 'state'),
        '--control',
        this.control,
        '--listen',
        '/ip4/127.0.0.1/tcp/0',
        // Tests move tags and mount them a moment later.
        '--tag-max-age',
        '0s',
        ...this.#options,
      ],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    )
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#log += text))
    return child
  }

  /** Kills supervisor and daemon at once, as a power cut would. */
  async killAll(): Promise<void> {
    const { daemonPid } = await this.status()
    const gone = once(this.#process, 'exit')
    this.#process.kill('SIGKILL')
    process.kill(daemonPid, 'SIGKILL')
    await gone
  }

  /** Starts on the same state, after {@link killAll}. */
  async startAgain(): Promise<void> {
    this.#process = this.#spawn()
    await this.#ready()
  }

  /** Sends a signal that ends the supervisor, but not its daemon. @returns the supervisor's exit status or signal */
  async endSupervisor(signal: NodeJS.Signals): Promise<number | string | null> {
    const gone = once(this.#process, 'exit') as Promise<[number | null, string | null]>
    this.#process.kill(signal)
    const [status, by] = await gone
    return status ?? by
  }

  /** Starts a supervisor that takes over, and waits until its own daemon answers. @returns how the one before has ended */
  async takeOver(...flags: string[]): Promise<number | null> {
    const before = this.#process
    const { daemonPid } = await this.status()
    const gone = before.exitCode === null && before.signalCode === null ? once(before, 'exit') : undefined
    this.#process = this.#spawn(flags)
    await this.replaced(daemonPid)
    await gone
    return before.exitCode
  }

  /** Runs `p2pfs daemon` on the same state to its end. */
  async daemonCommand(...flags: string[]): Promise<CliResult> {
    const state = ['--state-dir', join(this.directory, 'state'), '--control', this.control]
    return await runCli(['daemon', ...flags, ...state])
  }

  /** Starts a daemon and waits until it answers. It is stopped, and its directory removed, after the test. */
  static async start(context: TestContext, options: string[] = []): Promise<DaemonProcess> {
    const daemon = new DaemonProcess(mkdtempSync(join(tmpdir(), 'p2pfs-test-')), options)
    context.after(async () => {
      await daemon.stop()
      rmSync(daemon.directory, { recursive: true, force: true })
    })
    await daemon.#ready()
    return daemon
  }

  get log(): string {
    return this.#log
  }

  async #ready(): Promise<void> {
    const deadline = performance.now() + 90_000
    while ((await this.cli('status', '--json')).status !== 0) {
      if (this.#process.exitCode !== null) throw new Error(`daemon ended: ${this.#log}`)
      if (performance.now() > deadline) throw new Error(`daemon is not ready in time: ${this.#log}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  async cli(...argv: string[]): Promise<CliResult> {
    return await runCli([...argv, '--control', this.control])
  }

  /** The JSON output of a command. @throws if the command fails */
  async json<T>(...argv: string[]): Promise<T> {
    const { status, stdout, stderr } = await this.cli(...argv, '--json')
    if (status !== 0) throw new Error(`p2pfs ${argv.join(' ')}: ${stdout}${stderr}`)
    return JSON.parse(stdout) as T
  }

  async status(): Promise<Status> {
    return JSON.parse((await this.cli('status', '--json')).stdout) as Status
  }

  /** The value of a sample of the metrics, such as `a_total{source="peer"}`. */
  async metric(sample: string): Promise<number> {
    const asking = request({ socketPath: this.control, path: '/metrics', agent: false }).end()
    const [response] = (await once(asking, 'response')) as [IncomingMessage]
    const text = (await response.setEncoding('utf8').toArray()).join('')
    for (const { samples } of parsePrometheusText(text).values()) {
      const value = samples.get(sample)
      if (value !== undefined) return value
    }
    throw new Error(`no ${sample} in ${text}`)
  }

  /** Waits until a daemon other than `pid` answers. */
  async replaced(pid: number): Promise<Status> {
    for (const deadline = performance.now() + 90_000; ;) {
      const answer = await this.cli('status', '--json')
      if (answer.status === 0) {
        const status = JSON.parse(answer.stdout) as Status
        if (status.daemonPid !== pid) return status
      }
      if (performance.now() > deadline) throw new Error(`daemon is not replaced in time: ${this.#log}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  /** Waits until the log has a line like this. */
  async logs(pattern: RegExp): Promise<void> {
    for (const deadline = performance.now() + 90_000; !pattern.test(this.#log);) {
      if (performance.now() > deadline) throw new Error(`the log has no ${pattern}: ${this.#log}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  get supervisorPid(): number {
    return this.#process.pid!
  }

  signal(name: NodeJS.Signals): void {
    this.#process.kill(name)
  }

  /** Makes a directory to mount on. */
  target(name: string): string {
    const path = join(this.directory, name)
    mkdirSync(path)
    return path
  }

  /** The {@link mounts} while nothing is mounted for users. */
  get idleMounts(): string[] {
    return ['trees', 'run', 'mnt'].map((name) => join(this.directory, 'state', name))
  }

  /** The mounts below the daemon's directory. */
  mounts(): string[] {
    return readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((path) => path.startsWith(this.directory))
  }

  async stop(): Promise<number | null> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill('SIGTERM')
      await once(this.#process, 'exit')
    }
    return this.#process.exitCode
  }
}

export async function runCli(argv: string[]): Promise<CliResult> {
  return await new Promise((resolve) => {
    execFile(program, argv, { encoding: 'utf8' }, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr }),
    )
  })
}
