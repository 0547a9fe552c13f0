import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { MountResult } from '../../node/control/api.ts'
import { runContainer } from '../hosts/container.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { dropAllCaches } from '../hosts/page-cache.ts'
import type { ColdImage } from '../images/cold-images.ts'
import type { TimedRequest } from '../registry/logging-proxy-main.ts'
import { startLoggingProxy, type LoggingProxy } from '../registry/logging-proxy.ts'
import { Registry } from '../registry/registry.ts'
import { timedRequests } from './cold-timeline.ts'
import { cpuSecondsOf } from './cpu-time.ts'

/**
 * The state of the image when hosts that have nothing start its program all at once:
 *
 * - `import`: nobody has an index of it
 * - `profile`: an index and a boot profile are published beside it in the registry
 * - `peer`: one more host has all of it, and the registry is cut off
 */
export const burstModes = ['import', 'profile', 'peer'] as const
export type BurstMode = (typeof burstModes)[number]

/** The cost of one burst. */
export interface BurstStart {
  /** The time to the ready line of each host, the fastest first (ms). */
  readyMs: number[]
  /** Bytes that the registry has sent over its link until all were ready. */
  registryBytes: number
  /** Bytes that the hosts have sent to each other over their links until then. */
  betweenBytes: number
  /** CPU time of each daemon until then, on average (s). */
  daemonCpuSeconds: number
  /** Present if requests are logged. */
  requests?: TimedRequest[]
}

export interface BurstRates {
  registryBitsPerSecond: number
  hostBitsPerSecond: number
}

const meetTimeoutMs = 60_000

/** A registry behind a slow link, and hosts that start from nothing, all at once. */
export class BurstLab implements AsyncDisposable {
  readonly #network: Network
  readonly #registry: Registry
  readonly #publisher: LabHost
  readonly #hosts: LabHost[] = []
  /** `HOST:PORT` of the registry, or of the proxy before it. */
  readonly #authority: string
  /** The log of the proxy before the registry. */
  readonly #requestLog: string | undefined
  readonly #fullMesh: number | undefined
  readonly #prepared = new Map<string, string>()
  #publisherKey: string | undefined
  #holder: NodeProcess | undefined

  private constructor(
    network: Network,
    registry: Registry,
    publisher: LabHost,
    { proxy, fullMesh }: { proxy: LoggingProxy | undefined; fullMesh: number | undefined },
  ) {
    this.#fullMesh = fullMesh
    this.#authority = proxy?.authority ?? registry.authority
    this.#requestLog = proxy?.logPath
    this.#network = network
    this.#registry = registry
    this.#publisher = publisher
  }

  /**
   * @param options `logRequests` puts a proxy before the registry, which takes some time; `fullMesh`: as of the nodes
   */
  static async create({
    logRequests = false,
    fullMesh,
  }: { logRequests?: boolean; fullMesh?: number } = {}): Promise<BurstLab> {
    const network = await Network.create()
    try {
      const registry = await Registry.start(await network.addHost('registry'))
      const proxy = logRequests ? await startLoggingProxy(registry) : undefined
      return new BurstLab(network, registry, await network.addHost('publisher'), { proxy, fullMesh })
    } catch (error) {
      await network[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#holder?.stop()
    await this.#network[Symbol.asyncDispose]()
  }

  /** Starts the image's program once on each of `count` empty hosts. */
  async start(image: ColdImage, mode: BurstMode, count: number, rates: BurstRates): Promise<BurstStart> {
    const reference = await this.#prepare(image, mode)
    while (this.#hosts.length < count) this.#hosts.push(await this.#network.addHost(`burst-${this.#hosts.length}`))
    const hosts = this.#hosts.slice(0, count)
    const shaped = [this.#publisher, ...hosts]
    const { host: registryHost } = this.#registry
    await using stack = new AsyncDisposableStack()
    const bootstrap = mode === 'peer' && this.#holder !== undefined ? [this.#holder] : []
    const nodes: NodeProcess[] = []
    for (const host of hosts) {
      const options = { ...this.#nodeOptions, bootstrap: [...bootstrap, ...nodes.slice(0, 1)] }
      nodes.push(stack.use(await NodeProcess.startEmpty(host, options)))
    }
    const known = nodes.length - 1 + bootstrap.length
    for (const node of nodes)
      await node.whenStatus('knows its region', ({ members }) => members >= known, { timeoutMs: meetTimeoutMs })
    for (const host of shaped) await host.shape(rates.hostBitsPerSecond)
    stack.defer(async () => {
      for (const host of shaped) await host.unshape()
    })
    if (mode === 'peer') {
      await registryHost.cut()
      stack.defer(async () => await registryHost.restore())
    } else {
      await registryHost.shape(rates.registryBitsPerSecond)
      stack.defer(async () => await registryHost.unshape())
    }
    await dropAllCaches()
    const sentBytes = async (): Promise<number> => {
      const sent = await Promise.all(shaped.map(async (host) => (await host.traffic()).sentBytes))
      return sent.reduce((sum, bytes) => sum + bytes, 0)
    }
    const before = {
      registry: this.#registry.sentBytes,
      between: await sentBytes(),
      cpu: nodes.map((node) => cpuSecondsOf(node.daemonPid)),
    }
    const startedAt = performance.now()
    const isReady = nodes.map(() => Promise.withResolvers<number>())
    const runs = nodes.map(async (node, i) => {
      try {
        const directory = join(node.host.directory, 'tree')
        await mkdir(directory, { recursive: true })
        const { rootfs } = JSON.parse(await node.cli(['mount', reference, directory, '--as', 'tree'])) as MountResult
        await runContainer(node.host, rootfs, image, () => isReady[i]!.resolve(performance.now() - startedAt))
        await node.unmount(directory)
      } catch (error) {
        isReady[i]!.reject(error)
      }
    })
    const readyMs = await Promise.all(isReady.map(async ({ promise }) => await promise))
    const result = {
      readyMs: readyMs.toSorted((a, b) => a - b),
      registryBytes: this.#registry.sentBytes - before.registry,
      betweenBytes: (await sentBytes()) - before.between,
      daemonCpuSeconds:
        nodes.reduce((sum, node, i) => sum + cpuSecondsOf(node.daemonPid) - before.cpu[i]!, 0) /
        Math.max(nodes.length, 1),
    }
    const requests = this.#requestLog === undefined ? undefined : await timedRequests(this.#requestLog, startedAt)
    await Promise.all(runs)
    return { ...result, ...(requests && { requests }) }
  }

  /** Does once what the mode needs. @returns the image's reference */
  async #prepare(image: ColdImage, mode: BurstMode): Promise<string> {
    const repository = `lab/${image.tag}-${mode}:1`
    const known = this.#prepared.get(repository)
    if (known !== undefined) return known
    await this.#registry.push(image, repository)
    const reference = `${this.#authority}/${repository}`
    if (mode === 'profile') await this.#publish(image, reference)
    if (mode === 'peer') {
      this.#holder ??= await NodeProcess.startEmpty(this.#publisher, this.#nodeOptions)
      await this.#holder.cli(['seed', reference, '--format', 'erofs'])
    }
    this.#prepared.set(repository, reference)
    return reference
  }

  async #publish(image: ColdImage, reference: string): Promise<void> {
    await using node = await NodeProcess.startEmpty(this.#publisher, this.#nodeOptions)
    const directory = join(this.#publisher.directory, 'tree')
    await mkdir(directory, { recursive: true })
    const { rootfs } = JSON.parse(await node.cli(['mount', reference, directory, '--as', 'tree'])) as MountResult
    await runContainer(this.#publisher, rootfs, image, () => undefined)
    await node.unmount(directory)
    await node.cli(['seed', reference, '--format', 'erofs', '--publish'])
    this.#publisherKey = (await node.status()).peerId
  }

  get #nodeOptions(): { insecureRegistries: string[]; trustedIndexKeys: string[]; fullMesh?: number } {
    return {
      ...(this.#fullMesh !== undefined && { fullMesh: this.#fullMesh }),
      insecureRegistries: [this.#authority],
      trustedIndexKeys: this.#publisherKey === undefined ? [] : [this.#publisherKey],
    }
  }
}
