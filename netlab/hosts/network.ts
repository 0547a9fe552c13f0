import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { LabHost } from './lab-host.ts'
import { Namespace } from './namespace.ts'
import { run } from './process.ts'
import { labDirectory, removeDeadLabs, removeLab } from './remains.ts'

export interface LinkOptions {
  /** The rate of the host's link in each direction; not limited by default. */
  rateBitsPerSecond?: number
  signal?: AbortSignal
}

/** Every lab has the same subnet; it exists only inside the namespaces. */
const subnet = (hostNumber: number): string => `10.99.${hostNumber >> 8}.${hostNumber & 255}`
const prefixLength = 16
const maxHosts = 1000

/**
 * Hosts on a switch, all on this machine. Each host is a network namespace with one link to a bridge. The bridge has a
 * namespace too, so that the machine's own network stays as it is. Needs root.
 *
 * Its disposal leaves nothing behind: no processes, mounts, loop devices, namespaces or files. The end of this process
 * has the same effect. After a SIGKILL the next `create` on the machine removes what is left.
 */
export class Network implements AsyncDisposable {
  readonly name: string
  /** The directory of the lab's files and mounts; it is removed with the network. */
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
   * Connects a host to the switch.
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

/** The event 'exit' also comes after an uncaught exception or rejection. */
function hook({ onExit, onSignal }: Handlers): void {
  process.once('exit', onExit)
  for (const ending of endings) process.on(ending, onSignal)
}

function unhook({ onExit, onSignal }: Handlers): void {
  process.off('exit', onExit)
  for (const ending of endings) process.off(ending, onSignal)
}
