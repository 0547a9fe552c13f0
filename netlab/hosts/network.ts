import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { labDirectory, removeDeadLabs, removeLab } from './remains.ts'
import { Namespace } from './namespace.ts'
import { run, type CommandOutput, type RunOptions } from './process.ts'

export interface LinkOptions {
  /** Rate of the host's link in either direction, bits per second; as fast as the machine can if not given. */
  rateBitsPerSecond?: number
  signal?: AbortSignal
}

/** The subnet of every lab; it exists inside the namespaces only. */
const subnet = (hostNumber: number): string => `10.99.${hostNumber >> 8}.${hostNumber & 255}`
const prefixLength = 16
const maxHosts = 1000

/** A token bucket shorter than what a timer tick lets pass would never reach its rate: at least 4 ms worth of bytes. */
const burstSeconds = 0.004
/** tc-tbf(8): a burst below the largest (GSO) packet splits each of them. */
const minBurstBytes = 128 << 10
/** The queue before the shaper drops: what a switch port buffers. */
const queueLatency = '50ms'

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

interface LabHostParts {
  name: string
  address: string
  directory: string
  namespace: Namespace
  bridge: Namespace
  port: string
}

/** One host of a {@link Network}. */
export class LabHost {
  readonly name: string
  /** IPv4. */
  readonly address: string
  /** The host's own files. */
  readonly directory: string
  readonly #namespace: Namespace
  readonly #bridge: Namespace
  readonly #port: string

  constructor({ name, address, directory, namespace, bridge, port }: LabHostParts) {
    this.name = name
    this.address = address
    this.directory = directory
    this.#namespace = namespace
    this.#bridge = bridge
    this.#port = port
  }

  /** Runs a command on the host, to its end. */
  async run(command: string, args: readonly string[], options: RunOptions = {}): Promise<CommandOutput> {
    return await this.#namespace.run(command, args, options)
  }

  /** Starts a command on the host that stays until it is killed, or until the network is removed. */
  async start(command: string, args: readonly string[], options: SpawnOptions = {}): Promise<ChildProcess> {
    return await this.#namespace.start(command, args, options)
  }

  /** Limits the link to this rate in either direction, from now on. */
  async shape(rateBitsPerSecond: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const burstBytes = Math.max(minBurstBytes, Math.ceil((rateBitsPerSecond / 8) * burstSeconds))
    const rate = ['tbf', 'rate', `${rateBitsPerSecond}bit`, 'burst', `${burstBytes}b`, 'latency', queueLatency]
    await this.#namespace.tc(['qdisc', 'replace', 'dev', 'eth0', 'root', ...rate], { signal })
    await this.#bridge.tc(['qdisc', 'replace', 'dev', this.#port, 'root', ...rate], { signal })
  }

  /** As fast as the machine can, again. */
  async unshape({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#namespace.tc(['qdisc', 'replace', 'dev', 'eth0', 'root', 'noqueue'], { signal })
    await this.#bridge.tc(['qdisc', 'replace', 'dev', this.#port, 'root', 'noqueue'], { signal })
  }

  /** Pulls the cable: what was in flight is lost, connections stay open until they time out. */
  async cut({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#bridge.ip(['link', 'set', 'dev', this.#port, 'down'], { signal })
  }

  /** Plugs the cable in again. */
  async restore({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#bridge.ip(['link', 'set', 'dev', this.#port, 'up'], { signal })
  }

  /** A firewall in the host: what others send it is lost without a word, or refused; connections stay open for their ends. */
  async block(verdict: 'DROP' | 'REJECT', { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#namespace.run('iptables', ['-w', '-I', 'INPUT', '-i', 'eth0', '-j', verdict], {
      ...(signal && { signal }),
    })
    // What it sends itself goes nowhere either: answers that are under way.
    await this.#namespace.run('iptables', ['-w', '-I', 'OUTPUT', '-o', 'eth0', '-p', 'tcp', '-j', 'DROP'], {
      ...(signal && { signal }),
    })
  }

  /** Takes the firewall away. */
  async unblock({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#namespace.run('iptables', ['-w', '-F'], { ...(signal && { signal }) })
  }

  /** What has passed over the link since the host was plugged in, as the kernel counts it: bytes. */
  async traffic({ signal }: { signal?: AbortSignal } = {}): Promise<{ sentBytes: number; receivedBytes: number }> {
    const json = await this.#namespace.ip(['-json', '-statistics', 'link', 'show', 'dev', 'eth0'], { signal })
    const [link] = JSON.parse(json.toString()) as { stats64: { rx: { bytes: number }; tx: { bytes: number } } }[]
    if (link === undefined) throw new P2pfsError('missing', `${this.name} has no link`)
    return { sentBytes: link.stats64.tx.bytes, receivedBytes: link.stats64.rx.bytes }
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
