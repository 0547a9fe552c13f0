import type { LabImage } from '../images/lab-image.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { Registry } from '../registry/registry.ts'

export interface ThreeHostsOptions {
  /** Rate of each host's link, bits per second; not limited if not given. */
  rateBitsPerSecond?: number
  signal?: AbortSignal
}

/**
 * A registry with one image, and the hosts A, B and C of a region. A's daemon runs; those of B and C start on demand.
 */
export class ThreeHosts implements AsyncDisposable {
  readonly network: Network
  readonly registry: Registry
  /** The image, as the hosts name it. */
  readonly reference: string
  readonly a: NodeProcess
  readonly #hostB: LabHost
  readonly #hostC: LabHost
  readonly #joined: NodeProcess[] = []

  private constructor(parts: {
    network: Network
    registry: Registry
    reference: string
    a: NodeProcess
    hosts: [LabHost, LabHost]
  }) {
    this.network = parts.network
    this.registry = parts.registry
    this.reference = parts.reference
    this.a = parts.a
    ;[this.#hostB, this.#hostC] = parts.hosts
  }

  static async start(image: LabImage, options: ThreeHostsOptions = {}): Promise<ThreeHosts> {
    const { signal } = options
    const network = await Network.create({ ...(signal && { signal }) })
    try {
      const registry = await Registry.start(await network.addHost('registry', options), { ...(signal && { signal }) })
      const reference = await registry.push(image, 'lab/image:1', { ...(signal && { signal }) })
      const hostA = await network.addHost('a', options)
      const hosts: [LabHost, LabHost] = [await network.addHost('b', options), await network.addHost('c', options)]
      const a = await NodeProcess.start(hostA, { insecureRegistries: [registry.authority], ...(signal && { signal }) })
      return new ThreeHosts({ network, registry, reference, a, hosts })
    } catch (error) {
      await network[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Starts the daemons of B and C, and waits until both know A. */
  async join({ signal }: { signal?: AbortSignal } = {}): Promise<{ b: NodeProcess; c: NodeProcess }> {
    const options = { bootstrap: [this.a], insecureRegistries: [this.registry.authority], ...(signal && { signal }) }
    const start = async (host: LabHost): Promise<NodeProcess> => {
      const node = await NodeProcess.start(host, options)
      this.#joined.push(node)
      await node.whenStatus('has met A', ({ peers }) => peers.length > 0, {
        timeoutMs: meetTimeoutMs,
        ...(signal && { signal }),
      })
      return node
    }
    const [b, c] = await Promise.all([start(this.#hostB), start(this.#hostC)])
    return { b, c }
  }

  /** Stops the daemons the orderly way, then removes the network. */
  async [Symbol.asyncDispose](): Promise<void> {
    await using network = this.network
    await Promise.all([this.a, ...this.#joined].map(async (node) => await node.stop()))
    void network
  }
}

/** A limit for a busy machine; on an idle one hosts meet in milliseconds. */
const meetTimeoutMs = 20_000
