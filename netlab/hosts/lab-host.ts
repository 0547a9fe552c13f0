import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Namespace } from './namespace.ts'
import type { CommandOutput, RunOptions } from './process.ts'

/** A token bucket must hold what passes in one timer tick (4 ms), or the link never reaches its rate. */
const burstSeconds = 0.004
/** tc-tbf(8): a burst smaller than the largest (GSO) packet splits such packets. */
const minBurstBytes = 128 << 10
/** The queue before the shaper drops packets, as long as the buffer of a switch port. */
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

  /** Starts a command on the host. It stays until it is killed or the network is removed. */
  async start(command: string, args: readonly string[], options: SpawnOptions = {}): Promise<ChildProcess> {
    return await this.#namespace.start(command, args, options)
  }

  /** Limits the link to this rate in each direction, from now on. */
  async shape(rateBitsPerSecond: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const burstBytes = Math.max(minBurstBytes, Math.ceil((rateBitsPerSecond / 8) * burstSeconds))
    const rate = ['tbf', 'rate', `${rateBitsPerSecond}bit`, 'burst', `${burstBytes}b`, 'latency', queueLatency]
    await this.#namespace.tc(['qdisc', 'replace', 'dev', 'eth0', 'root', ...rate], { signal })
    await this.#bridge.tc(['qdisc', 'replace', 'dev', this.#port, 'root', ...rate], { signal })
  }

  /** Takes the limit of the link away. */
  async unshape({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#namespace.tc(['qdisc', 'replace', 'dev', 'eth0', 'root', 'noqueue'], { signal })
    await this.#bridge.tc(['qdisc', 'replace', 'dev', this.#port, 'root', 'noqueue'], { signal })
  }

  /** Pulls the cable: packets in flight are lost, and connections stay open until they time out. */
  async cut({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#bridge.ip(['link', 'set', 'dev', this.#port, 'down'], { signal })
  }

  /** Plugs the cable in again. */
  async restore({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#bridge.ip(['link', 'set', 'dev', this.#port, 'up'], { signal })
  }

  /**
   * Puts up a firewall in the host. Packets of others are dropped or refused; the ends of connections still count them
   * as open.
   */
  async block(verdict: 'DROP' | 'REJECT', { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#namespace.run('iptables', ['-w', '-I', 'INPUT', '-i', 'eth0', '-j', verdict], {
      ...(signal && { signal }),
    })
    // Answers that are under way are lost too.
    await this.#namespace.run('iptables', ['-w', '-I', 'OUTPUT', '-o', 'eth0', '-p', 'tcp', '-j', 'DROP'], {
      ...(signal && { signal }),
    })
  }

  /** Drops what comes from these hosts: this side of a partition. */
  async dropFrom(others: readonly LabHost[], { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    for (const { address } of others)
      await this.#namespace.run('iptables', ['-w', '-I', 'INPUT', '-s', address, '-j', 'DROP'], {
        ...(signal && { signal }),
      })
  }

  /** Takes the firewall away. */
  async unblock({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#namespace.run('iptables', ['-w', '-F'], { ...(signal && { signal }) })
  }

  /** The bytes that have passed over the link since the host was connected, as the kernel counts them. */
  async traffic({ signal }: { signal?: AbortSignal } = {}): Promise<{ sentBytes: number; receivedBytes: number }> {
    const json = await this.#namespace.ip(['-json', '-statistics', 'link', 'show', 'dev', 'eth0'], { signal })
    const [link] = JSON.parse(json.toString()) as { stats64: { rx: { bytes: number }; tx: { bytes: number } } }[]
    if (link === undefined) throw new P2pfsError('missing', `${this.name} has no link`)
    return { sentBytes: link.stats64.tx.bytes, receivedBytes: link.stats64.rx.bytes }
  }
}
