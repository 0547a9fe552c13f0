import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MountResult } from '../../node/control/api.ts'
import { createRandom } from '../../test/support/random.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess, type NodeProcessOptions } from '../hosts/node-process.ts'
import type { LabImage } from '../images/lab-image.ts'
import { Registry } from '../registry/registry.ts'

/** Reads of each reading host that are under way at once. */
const readersPerHost = 2
/** Pause of a reader after each read (ms): a program that computes. */
const readPauseMs = 40
/** Reads are this far apart, the length of the longest chunk: each needs another chunk. */
const strideBytes = 256 * 1024
const meetTimeoutMs = 60_000
/** A link that carries a kilobyte in a second. */
const crawlBitsPerSecond = 8_000
/** A host that churns is away so long (ms), and there so long. */
const churnMs = { away: 2_000, there: 6_000 } as const

interface Region {
  /** Hosts to which things happen; nobody reads there. */
  victims: Victim[]
  readers: NodeProcess[]
}

/** A host whose daemon may be stopped and started. */
interface Victim {
  node: NodeProcess
  start: () => Promise<void>
}

interface Trouble {
  /** Runs while others read. It ends, and leaves the region as it was, when the time is over. */
  happen: (region: Region, options: { seconds: number; over: AbortSignal }) => Promise<void>
}

/** Troubles of a region while its hosts read chunks that they do not have. */
export const troubles = {
  /** Daemons are stopped and started again, one host after the other, and lose nothing. */
  rolling: {
    happen: async ({ victims }, { over }) => {
      while (!over.aborted) {
        for (const victim of victims) {
          await victim.node.stop()
          await victim.start()
          await rest(1_000, over)
        }
      }
    },
  },
  /** Half of the hosts and the other half do not hear of each other; both reach the registry. It heals in the middle. */
  partition: {
    happen: async ({ victims, readers }, { seconds, over }) => {
      const hosts = [...victims.map(({ node }) => node), ...readers].map(({ host }) => host)
      const [here, there] = [hosts.filter((_, i) => i % 2 === 0), hosts.filter((_, i) => i % 2 === 1)]
      for (const host of here) await host.dropFrom(there)
      for (const host of there) await host.dropFrom(here)
      await rest(seconds * 500, over)
      for (const host of hosts) await host.unblock()
      await rest(Infinity, over)
    },
  },
  /** A host that others ask dies, with its supervisor, and does not come back. */
  killed: {
    happen: async ({ victims: [victim] }, { seconds, over }) => {
      await rest(seconds * 250, over)
      await victim!.node.killAll()
      await rest(Infinity, over)
      await victim!.start()
    },
  },
  /** A host that others ask stands still, with its connections open. */
  stopped: {
    happen: async ({ victims: [victim] }, { seconds, over }) => {
      await rest(seconds * 250, over)
      const pid = await victim!.node.signalDaemon('SIGSTOP')
      await rest(Infinity, over)
      process.kill(pid, 'SIGCONT')
    },
  },
  /** A host that others ask sends a kilobyte in a second. */
  slow: {
    happen: async ({ victims: [victim] }, { seconds, over }) => {
      await rest(seconds * 250, over)
      const { host } = victim!.node
      await host.shape(crawlBitsPerSecond)
      await rest(Infinity, over)
      await host.unshape()
    },
  },
  /** Hosts die and come back, again and again: of six, one every four seconds. */
  churn: {
    happen: async ({ victims }, { over }) => {
      await Promise.all(
        victims.map(async (victim, i) => {
          await rest((i * churnMs.there) / victims.length, over)
          while (!over.aborted) {
            await victim.node.killAll()
            await rest(churnMs.away, over)
            await victim.start()
            await rest(churnMs.there, over)
          }
        }),
      )
    },
  },
} as const satisfies Record<string, Trouble>

export type TroubleName = keyof typeof troubles
export const troubleNames = Object.keys(troubles) as TroubleName[]

export interface TroubleOptions {
  /** At least four; a third of them are those to which things happen. */
  hosts: number
  /** How long hosts read (s). */
  seconds: number
  /** Decides what is read, in which order. */
  seed: number
  /** Rate of the registry's link (bits per second). */
  registryBitsPerSecond: number
}

export interface TroubleOutcome {
  trouble: TroubleName
  /** How long each read took (ms), the shortest first. */
  readMs: number[]
  /** Errors of reads. */
  failures: string[]
  /** Bytes that the registry sent while hosts read. */
  registryBytes: number
}

/** A registry with one published image, and a region whose hosts begin with nothing in each trouble. */
export class TroubledRegion implements AsyncDisposable {
  readonly #network: Network
  readonly #registry: Registry
  readonly #hosts: LabHost[]
  readonly #reference: string
  readonly #options: TroubleOptions
  readonly #nodeOptions: NodeProcessOptions

  private constructor(parts: {
    network: Network
    registry: Registry
    hosts: LabHost[]
    reference: string
    options: TroubleOptions
    nodeOptions: NodeProcessOptions
  }) {
    this.#network = parts.network
    this.#registry = parts.registry
    this.#hosts = parts.hosts
    this.#reference = parts.reference
    this.#options = parts.options
    this.#nodeOptions = parts.nodeOptions
  }

  /** Publishes the image's index, so that hosts read what they need of its unmodified layers. */
  static async create(image: LabImage, options: TroubleOptions): Promise<TroubledRegion> {
    const network = await Network.create()
    try {
      const registry = await Registry.start(await network.addHost('registry'))
      const reference = await registry.push(image, 'lab/image:1')
      const hosts: LabHost[] = []
      for (let i = 0; i < options.hosts; i++) hosts.push(await network.addHost(`h${i}`))
      const insecureRegistries = [registry.authority]
      await using publisher = await NodeProcess.startEmpty(hosts[0]!, { insecureRegistries })
      await publisher.cli(['seed', reference, '--publish'])
      const { peerId } = await publisher.status()
      const nodeOptions = { insecureRegistries, trustedIndexKeys: [peerId] }
      return new TroubledRegion({ network, registry, hosts, reference, options, nodeOptions })
    } catch (error) {
      await network[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#network[Symbol.asyncDispose]()
  }

  /** Empty hosts mount the image and read it at random while the trouble goes on. */
  async run(trouble: TroubleName): Promise<TroubleOutcome> {
    const { seconds, seed, registryBitsPerSecond } = this.#options
    await using stack = new AsyncDisposableStack()
    const nodes: NodeProcess[] = []
    for (const host of this.#hosts) {
      const node = await NodeProcess.startEmpty(host, { ...this.#nodeOptions, bootstrap: nodes.slice(0, 1) })
      nodes.push(node)
    }
    const victimCount = Math.max(1, Math.floor(nodes.length / 3))
    const victims: Victim[] = nodes.slice(1, 1 + victimCount).map((node) => ({
      node,
      async start() {
        this.node = await NodeProcess.start(node.host, { ...nodeOptions, bootstrap: [nodes[0]!] })
      },
    }))
    const nodeOptions = this.#nodeOptions
    const readers = nodes.filter((node) => !victims.some((victim) => victim.node === node))
    stack.defer(async () => {
      for (const node of [...readers, ...victims.map((victim) => victim.node)]) await node.stop()
    })
    for (const node of nodes)
      await node.whenStatus('knows its region', ({ peers }) => peers.length >= nodes.length - 1, {
        timeoutMs: meetTimeoutMs,
      })
    const images = await Promise.all(nodes.map(async (node) => await this.#mount(node)))
    const { host: registryHost } = this.#registry
    await registryHost.shape(registryBitsPerSecond)
    stack.defer(async () => await registryHost.unshape())
    const before = this.#registry.sentBytes
    const over = new AbortController()
    const timer = setTimeout(() => over.abort(), seconds * 1000)
    stack.defer(() => clearTimeout(timer))
    const outcome: TroubleOutcome = { trouble, readMs: [], failures: [], registryBytes: 0 }
    const reading = readers.flatMap((node, i) =>
      Array.from({ length: readersPerHost }, async (_, k) => {
        await readAtRandom(images[nodes.indexOf(node)]!, { seed: seed + 100 * i + k, over: over.signal, outcome })
      }),
    )
    await Promise.all([...reading, troubles[trouble].happen({ victims, readers }, { seconds, over: over.signal })])
    outcome.registryBytes = this.#registry.sentBytes - before
    outcome.readMs.sort((a, b) => a - b)
    for (const node of readers) await node.unmount(directoryOf(node))
    return outcome
  }

  async #mount(node: NodeProcess): Promise<MountResult> {
    await mkdir(directoryOf(node), { recursive: true })
    return await node.mount(this.#reference, directoryOf(node))
  }
}

/** Reads a page of each chunk, in an order of its own, until the time is over or there are no more. */
async function readAtRandom(
  { rootfs, sizeBytes }: MountResult,
  { seed, over, outcome }: { seed: number; over: AbortSignal; outcome: TroubleOutcome },
): Promise<void> {
  const random = createRandom(seed)
  await using file = await open(rootfs)
  const page = Buffer.alloc(4096)
  const places = Array.from({ length: Math.floor(sizeBytes / strideBytes) }, (_, i) => i * strideBytes)
  while (!over.aborted && places.length > 0) {
    const [at] = places.splice(random.below(places.length), 1)
    const begunAt = performance.now()
    try {
      await file.read(page, 0, page.length, at)
    } catch (error) {
      outcome.failures.push(`${rootfs} at ${at}: ${(error as Error).message}`)
    }
    outcome.readMs.push(performance.now() - begunAt)
    await rest(readPauseMs, over)
  }
}

function directoryOf(node: NodeProcess): string {
  return join(node.host.directory, 'mnt')
}

/** Waits until the time has passed, or the signal fires. */
async function rest(ms: number, over: AbortSignal): Promise<void> {
  if (over.aborted) return
  const longest = 2 ** 31 - 1
  await sleep(Math.min(ms, longest), undefined, { signal: over }).catch(() => undefined)
}
