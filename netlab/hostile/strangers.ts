import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { LabHost } from '../hosts/lab-host.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { dropPageCache } from '../hosts/page-cache.ts'
import type { LabImage } from '../images/lab-image.ts'
import { Registry } from '../registry/registry.ts'
import { latenciesOf, timeReads, type Latencies } from './read-latency.ts'
import { Stranger } from './stranger.ts'
import type { StrangerCounts } from './stranger-orders.ts'

export interface StrangersOptions {
  rounds: number
  /** Connections that he opens to each of two daemons. */
  connectionsPerSecond: number
  halfOpen: number
  /** Receives one line for people as each step ends. */
  tell?: (line: string) => void
  signal?: AbortSignal
}

/** The figures of a host in one state. */
export interface Noticed {
  /** Reads of pages that are on another host. */
  cold: Latencies
  /** Reads of the same pages after that, from this host's disk. */
  local: Latencies
  /** Most memory of the two daemons, resident (bytes). */
  peakMemoryBytes: number
  /** From "daemon ready" to the first member (ms), of a host that joins. */
  joinMs: number
}

export interface StrangersOutcome {
  without: Noticed
  with: Noticed
  stranger: StrangerCounts
  /** Lines of the daemons' logs at level warn or error while he was there, without his source and the counts. */
  warnings: string[]
}

/** Pages that are read in a round. */
const pages = 500
const peerPort = 4100
/** A limit for a busy machine. */
const meetTimeoutMs = 30_000
/** How long the stranger is at it before anything is measured (ms). */
const warmUpMs = 2_000

/**
 * A stranger attacks the hosts A and B at once, while B reads an image that A has, and another host joins. Rounds
 * without him and with him alternate.
 */
export async function runStrangers(image: LabImage, options: StrangersOptions): Promise<StrangersOutcome> {
  const { rounds, connectionsPerSecond, halfOpen, tell = () => undefined, signal } = options
  const abort = { ...(signal && { signal }) }
  await using network = await Network.create(abort)
  const registry = await Registry.start(await network.addHost('registry', abort), abort)
  const reference = await registry.push(image, 'lab/image:1', abort)
  const hostA = await network.addHost('a', abort)
  const hostB = await network.addHost('b', abort)
  const hostC = await network.addHost('c', abort)
  const evil = await network.addHost('evil', abort)
  const common = { insecureRegistries: [registry.authority], ...abort }
  const seeder = await NodeProcess.start(hostA, common)
  await seeder.seed(reference, abort)
  await seeder.stop()
  // One that has not imported anything: what imports leave in memory is not what is measured.
  await using a = await NodeProcess.start(hostA, common)
  const attack = async (): Promise<Stranger[]> =>
    await Promise.all(
      [hostA, hostB].map(
        async ({ address }) =>
          await Stranger.start(evil, { host: address, port: peerPort, connectionsPerSecond, halfOpen, sources: [] }),
      ),
    )

  const rows: { without: Round[]; with: Round[] } = { without: [], with: [] }
  const counts: StrangerCounts[] = []
  const warnings = new Set<string>()
  for (let round = 0; round < rounds; round++) {
    for (const state of round % 2 === 0 ? (['without', 'with'] as const) : (['with', 'without'] as const)) {
      await using b = await NodeProcess.startEmpty(hostB, { ...common, bootstrap: [a] })
      await b.whenStatus('has met A', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs, ...abort })
      await a.resetPeakMemory(abort)
      const before = (await a.log()).length
      const strangers = state === 'with' ? await attack() : []
      await sleep(warmUpMs, undefined, abort)
      rows[state].push(await readAndJoin({ a, b, hostC, reference, round, common, abort }))
      for (const stranger of strangers) counts.push(await stranger.stop())
      if (state === 'with')
        for (const line of [...(await a.log()).slice(before).split('\n'), ...(await b.log()).split('\n')])
          if (/"level":"(warn|error)"/.test(line)) warnings.add(/"message":"([^"]*)"/.exec(line)?.[1] ?? line)
      tell(`round ${round + 1}, ${state} strangers: cold reads p99 ${rows[state].at(-1)!.coldP99.toFixed(1)} ms`)
    }
  }
  return {
    without: combine(rows.without),
    with: combine(rows.with),
    stranger: counts.reduce((sum, one) => ({
      opened: sum.opened + one.opened,
      refused: sum.refused + one.refused,
      heardBytes: sum.heardBytes + one.heardBytes,
      longestHeardBytes: Math.max(sum.longestHeardBytes, one.longestHeardBytes),
      heldAtEnd: Math.max(sum.heldAtEnd, one.heldAtEnd),
    })),
    warnings: [...warnings],
  }
}

interface Round {
  cold: number[]
  coldP99: number
  local: number[]
  peakMemoryBytes: number
  joinMs: number
}

async function readAndJoin({
  a,
  b,
  hostC,
  reference,
  round,
  common,
  abort,
}: {
  a: NodeProcess
  b: NodeProcess
  hostC: LabHost
  reference: string
  round: number
  common: { insecureRegistries: string[]; signal?: AbortSignal }
  abort: { signal?: AbortSignal }
}): Promise<Round> {
  const directory = join(b.host.directory, 'mnt')
  const { rootfs } = await b.mount(reference, directory, abort)
  const cold = await timeReads(rootfs, { pages, seed: round + 1 })
  await dropPageCache(abort)
  const local = await timeReads(rootfs, { pages, seed: round + 1 })
  const joinMs = await timeJoin(a, hostC, common, abort)
  const peaks = await Promise.all([a, b].map(async (node) => await node.peakMemoryBytes(abort)))
  await b.unmount(directory, abort)
  return { cold, coldP99: latenciesOf(cold).p99, local, peakMemoryBytes: Math.max(...peaks), joinMs }
}

/** How long a host takes to become a member (ms). */
async function timeJoin(
  a: NodeProcess,
  host: LabHost,
  common: { insecureRegistries: string[]; signal?: AbortSignal },
  abort: { signal?: AbortSignal },
): Promise<number> {
  await using c = await NodeProcess.startEmpty(host, { ...common, bootstrap: [a] })
  await c.whenStatus('has met the region', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs, ...abort })
  const log = await c.log()
  const timeOf = (message: string): number => {
    const line = log.split('\n').findLast((candidate) => candidate.includes(`"message":"${message}"`))
    return Date.parse((JSON.parse(line ?? '{}') as { time?: string }).time ?? '')
  }
  return Math.max(0, timeOf('peer joined') - timeOf('daemon ready'))
}

function combine(rounds: readonly Round[]): Noticed {
  return {
    cold: latenciesOf(rounds.flatMap(({ cold }) => cold)),
    local: latenciesOf(rounds.flatMap(({ local }) => local)),
    peakMemoryBytes: Math.max(...rounds.map(({ peakMemoryBytes }) => peakMemoryBytes)),
    joinMs: Math.max(...rounds.map(({ joinMs }) => joinMs)),
  }
}
