import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { MountResult } from '../../node/control/api.ts'
import type { ColdImage } from '../images/cold-images.ts'
import { runContainer } from '../hosts/container.ts'
import { Containerd } from '../hosts/containerd.ts'
import { LinkSampler, timedRequests, type ColdTimeline } from './cold-timeline.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { dropAllCaches } from '../hosts/page-cache.ts'
import { startLoggingProxy, type LoggingProxy } from '../registry/logging-proxy.ts'
import { Registry } from '../registry/registry.ts'

/**
 * The ways in which a host that has nothing gets a running program:
 *
 * - `plain`: containerd pulls and unpacks the image
 * - `import`: p2pfs mounts it, and nobody has published anything of it
 * - `index`: p2pfs mounts it, with an index published beside it in the registry
 * - `profile`: the same, by a host that has run the program once
 * - `peer`: the same as `import`, with a peer that has all of it; the registry's link alone is slow
 */
export const coldModes = ['plain', 'import', 'index', 'profile', 'peer'] as const
export type ColdMode = (typeof coldModes)[number]

/** The cost of one start from nothing. Bytes and requests are those on the registry's link. */
export interface ColdStart {
  /** The cost until the program could be started. */
  mountMs: number
  mountBytes: number
  mountRequests: number
  /** The cost until its ready line. */
  readyMs: number
  readyBytes: number
  readyRequests: number
  /** Bytes in all, with the rest of the program, a second and a third run. */
  totalBytes: number
  /**
   * The time from the start of a second run on this host to its ready line, and of a third run, with an empty page
   * cache.
   */
  againMs: number
  againColdMs: number
  /** Present if requests are logged. */
  timeline?: ColdTimeline
}

/** Hosts that have had the image before, by the way that they serve. */
type Publishers = Record<'index' | 'profile' | 'peer', LabHost>

/** A limit for a busy machine. */
const meetTimeoutMs = 20_000

/**
 * A registry behind a link of a given rate, with one image for each way, and a host that starts from nothing each time.
 */
export class ColdLab implements AsyncDisposable {
  readonly registry: Registry
  readonly #network: Network
  readonly #host: LabHost
  readonly #publishers: Publishers
  /** `HOST:PORT` of the registry, or of the proxy before it. */
  readonly #authority: string
  /** The log of the proxy before the registry. */
  readonly #requestLog: string | undefined
  #peer: NodeProcess | undefined
  readonly #prepared = new Set<string>()
  /** The keys of hosts that have published. */
  readonly #keys = new Set<string>()

  private constructor(parts: {
    network: Network
    registry: Registry
    host: LabHost
    publishers: Publishers
    proxy: LoggingProxy | undefined
  }) {
    this.#network = parts.network
    this.registry = parts.registry
    this.#host = parts.host
    this.#publishers = parts.publishers
    this.#authority = parts.proxy?.authority ?? parts.registry.authority
    this.#requestLog = parts.proxy?.logPath
  }

  /**
   * @param logRequests puts a proxy before the registry, so that each start has a timeline; the proxy takes some time
   */
  static async create({ logRequests = false }: { logRequests?: boolean } = {}): Promise<ColdLab> {
    const network = await Network.create()
    try {
      const registry = await Registry.start(await network.addHost('registry'))
      const host = await network.addHost('cold')
      const publishers = {
        index: await network.addHost('indexer'),
        profile: await network.addHost('profiler'),
        peer: await network.addHost('peer'),
      }
      const proxy = logRequests ? await startLoggingProxy(registry) : undefined
      return new ColdLab({ network, registry, host, publishers, proxy })
    } catch (error) {
      await network[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Makes one start over a link of `rateBitsPerSecond`; undefined is no limit. */
  async start(image: ColdImage, mode: ColdMode, rateBitsPerSecond: number | undefined): Promise<ColdStart> {
    const reference = await this.#prepare(image, mode)
    const { host: registryHost } = this.registry
    await (rateBitsPerSecond === undefined ? registryHost.unshape() : registryHost.shape(rateBitsPerSecond))
    const start = mode === 'plain' ? this.#startPlain(image, reference) : this.#startMounted(image, mode, reference)
    const result = await start
    await registryHost.unshape()
    return result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#peer?.stop()
    await this.#network[Symbol.asyncDispose]()
  }

  /** Pushes the image for this way once, and has other hosts do their part. @returns its reference */
  async #prepare(image: ColdImage, mode: ColdMode): Promise<string> {
    const repository = `lab/${image.tag}-${mode}:1`
    const reference = `${this.#authority}/${repository}`
    if (this.#prepared.has(reference)) return reference
    await this.registry.push(image, repository)
    if (mode === 'index' || mode === 'profile') await this.#publish(image, mode, reference)
    if (mode === 'peer') {
      this.#peer ??= await NodeProcess.startEmpty(this.#publishers.peer, this.#nodeOptions)
      await this.#peer.cli(['seed', reference, '--format', 'erofs'])
    }
    this.#prepared.add(reference)
    return reference
  }

  async #publish(image: ColdImage, mode: 'index' | 'profile', reference: string): Promise<void> {
    const host = this.#publishers[mode]
    await using node = await NodeProcess.startEmpty(host, this.#nodeOptions)
    if (mode === 'profile') {
      const { tree, directory } = await this.#mountTree(node, reference)
      await runContainer(host, tree, image, () => undefined)
      await node.unmount(directory)
    }
    await node.cli(['seed', reference, '--format', 'erofs', '--publish'])
    this.#keys.add((await node.status()).peerId)
  }

  async #startPlain(image: ColdImage, reference: string): Promise<ColdStart> {
    const [directory, tree] = [join(this.#host.directory, 'containerd'), join(this.#host.directory, 'tree')]
    const containerd = await Containerd.start(this.#host, directory)
    let mounted = false
    try {
      await mkdir(tree, { recursive: true })
      return await this.#measure(image, async () => {
        await containerd.pull(reference)
        await containerd.mount(reference, tree)
        mounted = true
        return tree
      })
    } finally {
      if (mounted) await containerd.unmount(tree)
      await containerd.stop()
      await rm(directory, { recursive: true })
      await rm(tree, { recursive: true })
    }
  }

  async #startMounted(image: ColdImage, mode: ColdMode, reference: string): Promise<ColdStart> {
    const bootstrap = mode === 'peer' && this.#peer !== undefined ? [this.#peer] : []
    await using node = await NodeProcess.startEmpty(this.#host, {
      ...this.#nodeOptions,
      bootstrap,
      trustedIndexKeys: mode === 'peer' ? [] : [...this.#keys],
    })
    if (bootstrap.length > 0)
      await node.whenStatus('has met its peer', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs })
    let mountPoint = ''
    const start = await this.#measure(image, async () => {
      const { tree, directory } = await this.#mountTree(node, reference)
      mountPoint = directory
      return tree
    })
    await node.unmount(mountPoint)
    return start
  }

  async #mountTree(node: NodeProcess, reference: string): Promise<{ tree: string; directory: string }> {
    const directory = join(node.host.directory, 'tree')
    await mkdir(directory, { recursive: true })
    const { rootfs } = JSON.parse(await node.cli(['mount', reference, directory, '--as', 'tree'])) as MountResult
    return { tree: rootfs, directory }
  }

  /** @param provide makes the tree that the program runs in */
  async #measure(image: ColdImage, provide: () => Promise<string>): Promise<ColdStart> {
    await dropAllCaches()
    const before = { bytes: this.registry.sentBytes, requests: this.registry.answeredRequests }
    const since = (): { bytes: number; requests: number } => ({
      bytes: this.registry.sentBytes - before.bytes,
      requests: this.registry.answeredRequests - before.requests,
    })
    const startedAt = performance.now()
    const sampler = new LinkSampler(startedAt, () => this.registry.sentBytes - before.bytes)
    const tree = await provide()
    const mountMs = performance.now() - startedAt
    const mounted = since()
    let [readyMs, ready] = [0, mounted]
    await runContainer(this.#host, tree, image, () => {
      readyMs = performance.now() - startedAt
      ready = since()
      sampler.stop()
    })
    const timeline =
      this.#requestLog === undefined
        ? undefined
        : {
            mountedAtMs: mountMs,
            readyAtMs: readyMs,
            requests: await timedRequests(this.#requestLog, startedAt),
            samples: sampler.samples,
          }
    const againMs = await this.#timeToReady(image, tree)
    await dropAllCaches()
    const againColdMs = await this.#timeToReady(image, tree)
    return {
      mountMs,
      mountBytes: mounted.bytes,
      mountRequests: mounted.requests,
      readyMs,
      readyBytes: ready.bytes,
      readyRequests: ready.requests,
      totalBytes: since().bytes,
      againMs,
      againColdMs,
      ...(timeline && { timeline }),
    }
  }

  async #timeToReady(image: ColdImage, tree: string): Promise<number> {
    const startedAt = performance.now()
    let readyMs = 0
    await runContainer(this.#host, tree, image, () => (readyMs = performance.now() - startedAt))
    return readyMs
  }

  get #nodeOptions(): { insecureRegistries: string[] } {
    return { insecureRegistries: [this.#authority] }
  }
}
