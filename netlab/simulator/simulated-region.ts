import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { logLevels, silentLog, type Log } from '../../node/base/log.ts'
import { EventLog } from './event-log.ts'
import { Invariants, type InvariantBounds } from './invariants.ts'
import type { Runner } from './link.ts'
import type { BootModel, NetworkModel, RegistryModel } from './model.ts'
import type { Random } from './process-random.ts'
import { SettledMembers } from './settled-members.ts'
import { SimulatedImage, type ImageShape } from './simulated-image.ts'
import { addressOf, type SimulatedHost } from './simulated-host.ts'
import { SimulatedNetwork, type Sent } from './simulated-network.ts'
import { nameOf, regionName, SimulatedNode } from './simulated-node.ts'
import { SimulatedRegistry } from './simulated-registry.ts'
import type { VirtualClock } from './virtual-clock.ts'

export interface RegionModel {
  network: NetworkModel
  registry: RegistryModel
  image: ImageShape
  boot: BootModel
}

export interface RegionOptions {
  hosts: number
  containersPerHost: number
  /** Members of a region that is connected each to each, at most; undefined: as in the product. */
  fullMesh: number | undefined
  /** Whether hosts know all members from the begin, so that they have only to connect. */
  isSettled: boolean
  /** From the last host's start to the burst (ms of virtual time). */
  settleMs: number
  /** Until when containers go on reading, from the start of the burst (ms). */
  lastMs: number
  /** How long the messages of the region are counted after the burst (ms). */
  restMs: number
  mayFail: boolean
  bounds: InvariantBounds
  traced: ReadonlySet<number>
  print: (line: string) => void
}

/** Hosts that everybody is told of. */
const bootstrapHosts = 3
/** Hosts start so far from each other (ms): a thousand in a second. */
const startEveryMs = 1
/** Hosts of a settled region start within this (ms): before those that have started miss the others. */
const settledStartMs = 2_000
/** How often the state of all hosts is looked at (ms). */
const stateEveryMs = 1_000
/** A read that fails is tried anew after this (ms), as a mount does it. */
const retryMs = 200
/** A read is given up when it has failed for so long (ms): the product's read deadline. */
const readDeadlineMs = 60_000

/** A region of hosts, a registry, and containers that start on all hosts at once. */
export class SimulatedRegion {
  readonly clock: VirtualClock
  readonly random: Random
  readonly network: SimulatedNetwork<SimulatedHost>
  readonly registry: SimulatedRegistry
  readonly image: SimulatedImage
  readonly invariants: Invariants
  readonly log: EventLog
  readonly nodes: SimulatedNode[] = []
  /** When each container was ready, from its own start (ms). */
  readonly readyMs: number[] = []
  readonly #model: RegionModel
  readonly #options: RegionOptions
  readonly #excluded = new Set<number>()
  #starting = 0
  #startedAtMs = 0
  /** The messages and bytes that each host sends in a second, before the burst and when all had found each other. */
  idlePerHostSecond = { messages: 0, bytes: 0 }

  constructor({ clock, random }: { clock: VirtualClock; random: Random }, model: RegionModel, options: RegionOptions) {
    this.clock = clock
    this.random = random
    this.#model = model
    this.#options = options
    this.log = new EventLog(clock, options)
    this.network = new SimulatedNetwork<SimulatedHost>(clock, random, model.network)
    this.image = new SimulatedImage(model.image, random)
    this.registry = new SimulatedRegistry(clock, model.registry, this.image)
    this.invariants = new Invariants(options.bounds, { mayFail: options.mayFail, ownBytes: this.image.ownBytes })
    this.registry.onRead = (read) => {
      this.log.note(read.host, 'registry sends a chunk', { digest: read.digest })
      this.invariants.registryRead(read)
    }
  }

  /** Whether no container is to become ready any more. */
  get isOver(): boolean {
    return this.#starting === 0
  }

  /** Starts the hosts one after the other, and lets them find each other. */
  async form(): Promise<void> {
    const { hosts, settleMs, isSettled } = this.#options
    const keys: PrivateKey[] = []
    for (let index = 0; index < hosts; index++) keys.push(await this.#createKey())
    const members = isSettled ? await SettledMembers.of(keys.map((key, index) => describe(key, index))) : undefined
    const everyMs = isSettled ? Math.min(startEveryMs, settledStartMs / hosts) : startEveryMs
    for (const [index, key] of keys.entries()) {
      this.nodes.push(this.#createNode(index, key, members))
      void this.nodes[index]!.start()
      await this.clock.run({ untilMs: this.clock.now() + everyMs })
    }
    await this.clock.run({ untilMs: this.clock.now() + settleMs / 2 })
    this.idlePerHostSecond = await this.#perHostSecond(settleMs / 2)
  }

  /** Lets the region rest after the burst. @returns what each host sends in a second, when a second is over */
  async rest(): Promise<Sent> {
    await this.clock.run({ untilMs: this.clock.now() + 1000 })
    const sent = await this.#perHostSecond(this.#options.restMs)
    this.#look()
    return sent
  }

  /** Lets time pass. @returns what each host sends in a second of it; the bytes without those of chunks */
  async #perHostSecond(ms: number): Promise<Sent> {
    const { clock, network } = this
    const before = { messages: network.messages, bytes: network.controlBytes }
    await clock.run({ untilMs: clock.now() + ms })
    const hostSeconds = (this.nodes.length * ms) / 1000
    return {
      messages: (network.messages - before.messages) / hostSeconds,
      bytes: (network.controlBytes - before.bytes) / hostSeconds,
    }
  }

  #look(): void {
    for (const node of this.nodes) this.invariants.state(node, this.clock.now())
  }

  /** Members that hosts are connected to, the fewest and the most. */
  get connected(): { min: number; max: number } {
    const counts = this.nodes.map(({ peers }) => peers.membership.members().length)
    return { min: Math.min(...counts), max: Math.max(...counts) }
  }

  /** Starts the containers on all hosts. */
  start(): void {
    this.#startedAtMs = this.clock.now()
    for (const node of this.nodes) this.#startOn(node)
    const look = (): void => {
      if (this.isOver) return
      this.#look()
      this.clock.after(stateEveryMs, look)
    }
    this.clock.after(stateEveryMs, look)
  }

  /** Runs until all containers are ready. @throws where they are not in time */
  async finish({ timeoutMs }: { timeoutMs: number }): Promise<void> {
    const untilMs = this.#startedAtMs + timeoutMs
    await this.clock.run({ untilMs, isOver: () => this.isOver })
    this.#look()
    if (!this.isOver)
      this.invariants.broken({
        what: `${this.#starting} containers are not ready after ${timeoutMs / 1000} s`,
        atMs: this.clock.now(),
        host: undefined,
      })
  }

  /** Containers that are ready on this host do not count: a fault is done to it. */
  exclude(index: number): void {
    this.#excluded.add(index)
  }

  /** The host loses power, and comes back empty, as a new one. */
  replace(index: number): void {
    const node = this.nodes[index]!
    this.log.note(index, 'host loses power')
    void node.stop({ crash: true })
    void this.#createKey().then(async (key) => {
      const created = this.#createNode(index, key, undefined)
      this.nodes[index] = created
      await created.start()
      this.#startOn(created)
    })
  }

  async #createKey(): Promise<PrivateKey> {
    return await generateKeyPairFromSeed('Ed25519', this.random.bytes(32))
  }

  /** @param members what the host knows from the begin; where it does not, it is told of some hosts */
  #createNode(index: number, key: PrivateKey, members: SettledMembers | undefined): SimulatedNode {
    const others = members === undefined ? this.nodes.slice(0, bootstrapHosts) : []
    const bootstrap = others.map(({ host }) => host.address.toString()).filter((_, i) => i !== index)
    return SimulatedNode.create(
      {
        network: this.network,
        registry: this.registry,
        image: this.image,
        log: this.#logOf(index),
        cpuPerChunkMs: this.#model.boot.cpuPerChunkMs,
      },
      { index, key, bootstrap, known: members?.known, fullMesh: this.#options.fullMesh },
    )
  }

  /** Lines that a traced host logs. */
  #logOf(index: number): Log {
    if (!this.log.isTraced(index)) return silentLog
    const lines = logLevels.map((level) => [
      level,
      (message: string, fields?: Record<string, unknown>) => this.log.note(index, message, fields),
    ])
    const log: Log = { ...(Object.fromEntries(lines) as Log), child: () => log }
    return log
  }

  #startOn(node: SimulatedNode): void {
    for (let i = 0; i < this.#options.containersPerHost; i++) {
      const counts = !this.#excluded.has(node.host.index)
      if (counts) this.#starting++
      const startedAtMs = this.clock.now()
      const ready = (): void => {
        if (counts) this.readyMs.push(this.clock.now() - startedAtMs)
      }
      void this.#container(node, ready)
        .catch((error: unknown) => {
          const what = `a container failed: ${(error as Error).message}`
          this.invariants.broken({ what, atMs: this.clock.now(), host: node.host.index })
        })
        .finally(() => {
          if (counts) this.#starting--
        })
    }
  }

  /** One container, from its mount to its ready line and to its last read; it ends with its host. */
  async #container(node: SimulatedNode, ready: () => void): Promise<void> {
    const { commandMs, startMs, computeMs } = this.#model.boot
    const { boot } = this.image
    const { index } = node.host
    const program: Runner = { usedMs: 0 }
    try {
      await this.#compute(program, commandMs)
      node.track()
      await Promise.all(this.image.publication.map(async (request) => await this.#read(node, request)))
      this.log.note(index, 'mounted')
      node.replay()
      await this.#compute(program, startMs)
      for (const request of boot) {
        await this.#compute(program, computeMs / boot.length)
        await this.#read(node, request)
      }
      this.log.note(index, 'container is ready')
      ready()
      await this.#readOn(node)
    } catch (error) {
      if (node.signal.aborted) return
      throw error
    }
  }

  /** Reads what the boot did not, in an order of its own, evenly until the time is over. */
  async #readOn(node: SimulatedNode): Promise<void> {
    const left = this.image.later.slice()
    while (left.length > 0) {
      const leftMs = this.#startedAtMs + this.#options.lastMs - this.clock.now()
      if (leftMs <= 0 || node.signal.aborted) return
      await this.#pause(leftMs / (left.length + 1))
      await this.#read(node, left.splice(this.random.below(left.length), 1)[0]!)
    }
  }

  async #read(node: SimulatedNode, request: (typeof this.image.boot)[number]): Promise<void> {
    if (node.store.has(request.digest)) return
    const startedAt = this.clock.now()
    for (;;) {
      try {
        await node.read(request)
        break
      } catch (error) {
        if (node.signal.aborted || this.clock.now() - startedAt > readDeadlineMs) throw error
        await this.#pause(retryMs)
      }
    }
    if (!this.#excluded.has(node.host.index))
      this.invariants.read(node.host.index, this.clock.now() - startedAt, this.clock.now())
  }

  /** A program computes: on a core of its own, or of those that all share. */
  async #compute(program: Runner, ms: number): Promise<void> {
    const { cores } = this.network
    if (cores === undefined) return await this.#pause(ms)
    await new Promise<void>((resolve) => cores.run(program, ms, resolve))
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => void this.clock.after(ms, resolve))
  }
}

/** A host, as it describes itself. */
function describe(key: PrivateKey, index: number): Parameters<typeof SettledMembers.of>[0][number] {
  const addresses = [addressOf(index).toString()]
  return { key, record: { region: regionName, name: nameOf(index), addresses, sequence: Date.now(), hasLeft: false } }
}
