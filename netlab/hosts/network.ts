import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { LabHost } from './lab-host.ts'
import { Namespace } from './namespace.ts'
import { run } from './process.ts'
import { labDirectory, removeDeadLabs, removeLab } from './remains.ts'

export interface LinkOptions {
  /** Rate of the host's link in either direction, bits per second; as fast as the machine can if not given. */
  rateBitsPerSecond?: number
  signal?: AbortSignal
}

/** The subnet of every lab; it exists inside the namespaces only. */
const subnet = (hostNumber: number): string => `10.99.${hostNumber >> 8}.${hostNumber & 255}`
const prefixLength = 16
const maxHosts = 1000

/**
 * Hosts on a switch, all on this machine: each host a network namespace with one link to a bridge, which has a namespace of
 * its own, so that nothing of it shows on the machine's own network. Needs root.
 *
 * Disposing it leaves nothing behind: processes, mounts, loop devices, namespaces, files. So does the end of this process
 * in whatever way but SIGKILL; what that leaves, the next `create` on the machine removes.
 */
export class Network implements AsyncDisposable {
  readonly name: string
  /** For the lab's files and mounts; removed with the network. */
  readonly directory: string
  readonly #bridge: Namespace
  readonly #hosts = new Map<string, LabHost>()
  readonly #onExit: () => void
  readonly #onSignal: (signal: NodeJS.Signals) => void
  #disposed = false

  private constructor(
    name: string,
    bridge: Namespace,
    handlers: { onExit: () => void; onSignal: (signal: NodeJS.Signals) => void },
  ) {
    this.name = name
    this.directory = labDirectory(name)
    this.#bridge = bridge
    this.#onExit = handlers.onExit
    this.#onSignal = handlers.onSignal
  }

  /** @throws unsupported if the machine has no `ip`; unavailable if it does not let us make namespaces (not root) */
  static async create({ signal }: { signal?: AbortSignal } = {}): Promise<Network> {
    signal?.throwIfAborted()
    removeDeadLabs()
    const name = `p2pfs-${process.pid}-${Math.floor(Math.random() * 1e6)}`
    const onExit = (): void => void removeLab(name)
    const onSignal = (received: NodeJS.Signals): void => process.exit(received === 'SIGINT' ? 130 : 143)
    const handlers = { onExit, onSignal }
    hook(handlers)
    try {
      await mkdir(labDirectory(name), { recursive: true })
      const bridge = await Namespace.create(`${name}-switch`, { ...(signal && { signal }) })
      await bridge.ip(['link', 'add', 'bridge', 'type', 'bridge', 'stp_state', '0'], { signal })
      await bridge.ip(['link', 'set', 'dev', 'bridge', 'up'], { signal })
      return new Network(name, bridge, handlers)
    } catch (error) {
      removeLab(name)
      unhook(handlers)
      throw error
    }
  }

  /**
   * Plugs in a host.
   *
   * @throws conflict if the name is taken or the network is full; closed after disposal
   */
  async addHost(name: string, { rateBitsPerSecond, signal }: LinkOptions = {}): Promise<LabHost> {
    if (this.#disposed) throw new P2pfsError('closed', 'the network has been removed')
    if (this.#hosts.has(name)) throw new P2pfsError('conflict', `there is a host ${name} already`, { name })
    if (this.#hosts.size >= maxHosts) throw new P2pfsError('conflict', `a network has at most ${maxHosts} hosts`)
    const number = this.#hosts.size + 1
    const port = `port${number}`
    const namespace = await Namespace.create(`${this.name}-${name}`, { ...(signal && { signal }) })
    const link = [
      'link',
      'add',
      'eth0',
      'netns',
      namespace.name,
      'type',
      'veth',
      'peer',
      'name',
      port,
      'netns',
      this.#bridge.name,
    ]
    await run('ip', link, { ...(signal && { signal }) })
    await this.#bridge.ip(['link', 'set', 'dev', port, 'master', 'bridge', 'up'], { signal })
    await namespace.ip(['address', 'add', `${subnet(number)}/${prefixLength}`, 'dev', 'eth0'], { signal })
    await namespace.ip(['link', 'set', 'dev', 'eth0', 'up'], { signal })
    const directory = join(this.directory, name)
    await mkdir(directory)
    const host = new LabHost({ name, address: subnet(number), directory, namespace, bridge: this.#bridge, port })
    if (rateBitsPerSecond !== undefined) await host.shape(rateBitsPerSecond, { ...(signal && { signal }) })
    this.#hosts.set(name, host)
    return host
  }

  /** Removes everything; idempotent. @throws unavailable if something would not go */
  // eslint-disable-next-line typescript/require-await -- the interface is asynchronous, the removal must not be
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return
    this.#disposed = true
    unhook({ onExit: this.#onExit, onSignal: this.#onSignal })
    const remains = removeLab(this.name)
    if (remains.length > 0) throw new P2pfsError('unavailable', `could not remove ${remains.join(', ')}`)
  }
}

/** Signals that end a process in an orderly way. */
const endings = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

interface Handlers {
  onExit: () => void
  onSignal: (signal: NodeJS.Signals) => void
}

/** 'exit' also comes after an uncaught exception or rejection. */
function hook({ onExit, onSignal }: Handlers): void {
  process.once('exit', onExit)
  for (const ending of endings) process.on(ending, onSignal)
}

function unhook({ onExit, onSignal }: Handlers): void {
  process.off('exit', onExit)
  for (const ending of endings) process.off(ending, onSignal)
}
