import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LabHost } from '../../../netlab/hosts/lab-host.ts'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { writeWeightsLayout } from '../../../netlab/images/weights-image.ts'
import { Registry } from '../../../netlab/registry/registry.ts'
import { createRandom } from '../../support/random.ts'

const program = fileURLToPath(new URL('../../../cli/p2pfs', import.meta.url))
const patience = { timeoutMs: 60_000 }
/** A read of a program that looks at a file here and there (bytes): each needs another chunk. */
const strideBytes = 256 * 1024
/** The image's one file, which hardly compresses. */
export const imageMebibytes = 24
/** Links of the keeper, which is the link between the regions, and of the registry (bits a second). */
export const rates = { between: 100e6, registry: 100e6 }

/** Environment of a daemon, whose options can stand there. */
export type Options = Record<string, string>

/**
 * Region *b*, one host that has an image whole; a registry that has it too; and hosts of region *a*, which are b's
 * guests.
 */
export class TwoRegions implements AsyncDisposable {
  readonly registry: Registry
  /** The host of b; its link is that between the regions. */
  readonly keeper: NodeProcess
  readonly image: string
  /** SHA-256 of the rootfs. */
  readonly whole: string
  readonly sizeBytes: number
  readonly #network: Network
  readonly #options: Options
  readonly #hosts: LabHost[] = []

  private constructor(parts: {
    network: Network
    registry: Registry
    keeper: NodeProcess
    image: string
    whole: Buffer
    options: Options
  }) {
    this.#network = parts.network
    this.registry = parts.registry
    this.keeper = parts.keeper
    this.image = parts.image
    this.whole = hashOf(parts.whole)
    this.sizeBytes = parts.whole.length
    this.#options = parts.options
  }

  static async create(): Promise<TwoRegions> {
    const network = await Network.create()
    try {
      const registry = await Registry.start(await network.addHost('registry'))
      const layout = await writeWeightsLayout(network.directory, { mebibytes: imageMebibytes, compression: 'gzip' })
      const image = await registry.push(layout, 'lab/model:1')
      const guestKey = join(network.directory, 'guests.key')
      writeFileSync(guestKey, execFileSync(program, ['keygen'], { encoding: 'utf8' }), { mode: 0o600 })
      const insecureRegistries = [registry.authority]
      const keeper = await NodeProcess.start(await network.addHost('keeper'), {
        region: 'b',
        insecureRegistries,
        env: { P2PFS_GUEST_KEY_FILE: guestKey, P2PFS_NEIGHBOUR_BANDWIDTH: 'none' },
      })
      await keeper.cli(['seed', image, '--publish'])
      const { rootfs } = await keeper.mount(image, join(keeper.host.directory, 'mnt'))
      const whole = await readFile(rootfs)
      await keeper.host.shape(rates.between)
      await registry.host.shape(rates.registry)
      const options = {
        P2PFS_NEIGHBOUR_REGION: `b=${await keeper.peerAddress()}`,
        P2PFS_NEIGHBOUR_KEY_FILE: `b=${guestKey}`,
        P2PFS_NEIGHBOUR_BANDWIDTH: 'none',
        P2PFS_TRUST_INDEX_KEY: (await keeper.status()).peerId,
      }
      return new TwoRegions({ network, registry, keeper, image, whole, options })
    } catch (error) {
      await network[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.keeper.stop()
    await this.#network[Symbol.asyncDispose]()
  }

  /** Starts empty hosts of region *a*. They are guests of b unless `isGuest` is false. */
  async start(
    count: number,
    { options = {}, isGuest = true }: { options?: Options; isGuest?: boolean } = {},
  ): Promise<AsyncDisposable & { nodes: NodeProcess[] }> {
    while (this.#hosts.length < count) this.#hosts.push(await this.#network.addHost(`a${this.#hosts.length}`))
    await using stack = new AsyncDisposableStack()
    const nodes: NodeProcess[] = []
    for (const host of this.#hosts.slice(0, count)) {
      const node = await NodeProcess.startEmpty(host, {
        region: 'a',
        insecureRegistries: [this.registry.authority],
        bootstrap: nodes.slice(0, 1),
        env: { ...this.#options, ...options },
      })
      nodes.push(stack.use(node))
    }
    for (const node of nodes)
      await node.whenStatus(
        'has met all',
        ({ peers, neighbours: [b] }) => peers.length === count - 1 && (!isGuest || b?.members.length === 1),
        patience,
      )
    const running = stack.move()
    return { nodes, [Symbol.asyncDispose]: async () => await running.disposeAsync() }
  }

  async mount(node: NodeProcess): Promise<string> {
    return (await node.mount(this.image, join(node.host.directory, 'mnt'))).rootfs
  }

  /** Mounts the image, and reads all of it. @returns its SHA-256 */
  async read(node: NodeProcess): Promise<string> {
    return hashOf(await readFile(await this.mount(node)))
  }
}

/**
 * Reads a block of each stretch of the file, one after the other, in an order that nobody can guess.
 * @param onRead called after each with how many there have been, and how many there are
 * @returns how long each took (ms)
 */
export async function readBlocks(
  path: string,
  onRead: (done: number, all: number) => Promise<void> | void,
): Promise<number[]> {
  await using file = await open(path)
  const { size } = await file.stat()
  const count = Math.floor(size / strideBytes)
  const { next } = createRandom(3)
  const places = Array.from({ length: count }, (_, i) => ({ place: i * strideBytes, rank: next() }))
    .toSorted((a, b) => a.rank - b.rank)
    .map(({ place }) => place)
  const tookMs: number[] = []
  for (const [i, place] of places.entries()) {
    const startedAt = performance.now()
    await file.read(Buffer.alloc(4096), 0, 4096, place)
    tookMs.push(performance.now() - startedAt)
    await onRead(i + 1, count)
  }
  return tookMs
}

function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
