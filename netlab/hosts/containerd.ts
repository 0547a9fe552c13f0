import type { ChildProcess } from 'node:child_process'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { eventually } from '../../test/support/deadline.ts'
import type { LabHost } from './lab-host.ts'
import { exited, lastLines } from './process.ts'

/** A limit for a busy machine; on an idle one it takes a few hundred milliseconds. */
const startTimeoutMs = 20_000
/** Layers are unpacked with this one, which is containerd's default. */
const snapshotter = 'overlayfs'

/** An empty containerd on a host of the lab, independent of one that the machine may run. */
export class Containerd {
  readonly #host: LabHost
  readonly #socket: string
  readonly #process: ChildProcess

  private constructor(host: LabHost, socket: string, process: ChildProcess) {
    this.#host = host
    this.#socket = socket
    this.#process = process
  }

  /**
   * @param directory for its files; does not exist yet
   * @throws unsupported if it is not installed; timeout if it does not come up
   */
  static async start(host: LabHost, directory: string, { signal }: { signal?: AbortSignal } = {}): Promise<Containerd> {
    const [socket, config, logPath] = ['containerd.sock', 'config.toml', 'containerd.log'].map((name) =>
      join(directory, name),
    ) as [string, string, string]
    await mkdir(directory)
    await writeFile(
      config,
      [
        'version = 2',
        `root = ${JSON.stringify(join(directory, 'root'))}`,
        `state = ${JSON.stringify(join(directory, 'state'))}`,
        // A pull by ctr does not use the part for Kubernetes.
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
        `grpc = { address = ${JSON.stringify(socket)} }`,
        '',
      ].join('\n'),
    )
    await using log = await open(logPath, 'a')
    const child = await host.start('containerd', ['--config', config], { stdio: ['ignore', log.fd, log.fd] })
    const containerd = new Containerd(host, socket, child)
    await eventually('containerd answers', async () => await containerd.#answers(logPath), {
      timeoutMs: startTimeoutMs,
      ...(signal && { signal }),
    })
    return containerd
  }

  /** Pulls an image over plain HTTP and unpacks it. */
  async pull(reference: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const flags = ['image', 'pull', '--plain-http', '--snapshotter', snapshotter]
    await this.#host.run('ctr', ['--address', this.#socket, ...flags, reference], { ...(signal && { signal }) })
  }

  /** Mounts a pulled image read-only, until {@link unmount}. */
  async mount(reference: string, directory: string): Promise<void> {
    await this.#host.run('ctr', [
      '--address',
      this.#socket,
      'image',
      'mount',
      '--snapshotter',
      snapshotter,
      reference,
      directory,
    ])
  }

  async unmount(directory: string): Promise<void> {
    await this.#host.run('ctr', ['--address', this.#socket, 'image', 'unmount', directory])
  }

  async stop(): Promise<void> {
    this.#process.kill('SIGTERM')
    await exited(this.#process)
  }

  async #answers(logPath: string): Promise<true | undefined> {
    if (this.#process.exitCode !== null)
      throw new P2pfsError('unavailable', `containerd ended: ${lastLines(await readFile(logPath, 'utf8'), 5)}`)
    return await this.#host.run('ctr', ['--address', this.#socket, '--connect-timeout', '1s', 'version']).then(
      () => true as const,
      () => undefined,
    )
  }
}
