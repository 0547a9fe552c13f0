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
 * How a host that has nothing comes to a running program:
 *
 * - `plain`: containerd pulls and unpacks the image
 * - `import`: p2pfs mounts it, and nobody has published anything of it
 * - `index`: p2pfs mounts it, with an index published beside it in the registry
 * - `profile`: the same, by a host that has run the program once
 * - `peer`: the same as `import`, with a peer that has all of it; the registry's link alone is slow
 */
export const coldModes = ['plain', 'import', 'index', 'profile', 'peer'] as const
export type ColdMode = (typeof coldModes)[number]

/** What one start took, from nothing. Bytes and requests are those over the registry's link. */
export interface ColdStart {
  /** Until the program could be started. */
  mountMs: number
  mountBytes: number
  mountRequests: number
  /** Until its ready line. */
  readyMs: number
  readyBytes: number
  readyRequests: number
  /** Of all that followed, too: the rest of the program, a second and a third run. */
  totalBytes: number
  /** From the start of a second run on this host to its ready line; and of a third one, with an empty page cache. */
  againMs: number
  againColdMs: number
  /** Where requests are logged. */
  timeline?: ColdTimeline
}

/** Hosts that have had the image before, by the way that they are for. */
type Publishers = Record<'index' | 'profile' | 'peer', LabHost>

/** On a machine that is busy with other tests. */
const meetTimeoutMs = 20_000

/** A registry behind a link of a given rate, with one image for each mode, and a host that starts from nothing each time. */
export class ColdLab implements AsyncDisposable {
  readonly registry: Registry
  readonly #network: Network
  readonly #host: LabHost
  readonly #publishers: Publishers
  /** Where the hosts find the registry. */
  readonly #authority: string
  /** Of the proxy before it. */
  readonly #requestLog: string | undefined
  #peer: NodeProcess | undefined
  readonly #prepared = new Set<string>()
  /** Of hosts that have published. */
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

  /** @param logRequests with a proxy before the registry, that takes time of its own, so that each start has a timeline */
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

  /** One start, over a link of `rateBitsPerSecond`; as fast as the machine can if that is undefined. */
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

  /** Pushes the image for this mode, once, with whatever others do to it before. Returns its reference. */
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
