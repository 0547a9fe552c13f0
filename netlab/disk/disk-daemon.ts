import { spawn, type ChildProcess } from 'node:child_process'
import { mkdir, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { MountResult, Status } from '../../node/control/api.ts'
import { eventually } from '../../test/support/deadline.ts'
import { callControl } from '../hosts/control-call.ts'
import { exited, run } from '../hosts/process.ts'

const command = fileURLToPath(new URL('../../cli/p2pfs', import.meta.url))
/** A limit for a busy machine (ms). */
const startTimeoutMs = 60_000

/** A daemon on this machine, alone in its region, with a state directory of its own. */
export class DiskDaemon implements AsyncDisposable {
  readonly directory: string
  readonly state: string
  readonly #process: ChildProcess
  #targets = 0

  private constructor(directory: string, state: string, process: ChildProcess) {
    this.directory = directory
    this.state = state
    this.#process = process
  }

  /** @param directory for its socket, its log and mounts; `state` may be elsewhere */
  static async start(
    directory: string,
    options: readonly string[],
    state = join(directory, 'state'),
  ): Promise<DiskDaemon> {
    await mkdir(directory, { recursive: true })
    await using log = await open(join(directory, 'daemon.log'), 'a')
    const args = [
      '--state-dir',
      state,
      '--control',
      join(directory, 'control.sock'),
      '--listen',
      '/ip4/127.0.0.1/tcp/0',
    ]
    const child = spawn(command, ['daemon', ...args, ...options], { stdio: ['ignore', log.fd, log.fd] })
    const daemon = new DiskDaemon(directory, state, child)
    await eventually('the daemon answers', async () => await daemon.status().catch(() => undefined), {
      timeoutMs: startTimeoutMs,
    })
    return daemon
  }

  async call<T>(request: Parameters<typeof callControl>[1], body?: object): Promise<T> {
    return await callControl<T>(join(this.directory, 'control.sock'), request, body)
  }

  async status(): Promise<Status> {
    return await this.call<Status>('GET /v1/status')
  }

  /** Mounts an image as a tree on a directory of its own. */
  async mount(image: string): Promise<string> {
    const directory = join(this.directory, `mount-${this.#targets++}`)
    await mkdir(directory)
    await this.call<MountResult>('POST /v1/mounts', { image, directory, as: 'tree' })
    return directory
  }

  async umount(directory: string): Promise<void> {
    await this.call(`DELETE /v1/mounts?directory=${encodeURIComponent(directory)}`)
  }

  /** The room on the disk of chunk files, and of those for native reads (bytes). */
  async storeBytes(): Promise<number> {
    const directories = [join(this.state, 'chunks'), join(this.state, 'native')]
    const { stdout } = await run(
      'find',
      [...directories, '-type', 'f', '!', '-name', 'sync-journal*', '-printf', '%b\n'],
      {
        // Files go while it looks.
        accept: [0, 1],
      },
    )
    return stdout
      .toString()
      .split('\n')
      .reduce((sum, blocks) => sum + Number(blocks) * 512, 0)
  }

  async log(): Promise<string> {
    return await readFile(join(this.directory, 'daemon.log'), 'utf8')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { mounts } = await this.status().catch(() => ({ mounts: [] as { directory: string }[] }))
    for (const { directory } of mounts) await this.umount(directory).catch(() => undefined)
    const ended = exited(this.#process)
    this.#process.kill('SIGTERM')
    await ended
  }
}
