import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Namespace } from './namespace.ts'
import type { CommandOutput, RunOptions } from './process.ts'

/** A token bucket shorter than what a timer tick lets pass would never reach its rate: at least 4 ms worth of bytes. */
const burstSeconds = 0.004
/** tc-tbf(8): a burst below the largest (GSO) packet splits each of them. */
const minBurstBytes = 128 << 10
/** The queue before the shaper drops: what a switch port buffers. */
const queueLatency = '50ms'

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
