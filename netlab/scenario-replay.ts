import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { BootReplay } from '../node/control/api.ts'
import type { LabImage } from './images.ts'
import { Network, type LabHost } from './network.ts'
import { dropPageCache, NodeProcess } from './node-process.ts'
import { Registry } from './registry.ts'

export interface ReplayScenarioOptions {
  /** Rate of the link of each host that mounts, bits per second. */
  rateBitsPerSecond: number
  /** Run in the image's tree; it has started when it ends. */
  program: readonly string[]
  /** Mounts without and with replay, in turn, each on a host that has nothing of the image. */
  rounds: number
  tell?: (line: string) => void
  signal?: AbortSignal
}

export interface ReplayedStart {
  /** From the start of `p2pfs mount` to the end of the program. */
  readyMs: number
  /** What the link of the host had brought by then; what was fetched when the replay was over. Bytes. */
  receivedBytes: number
  fetchedBytes: number
  profile: BootReplay | undefined
}

export interface ReplayOutcome {
  rootfsBytes: number
  without: ReplayedStart[]
  with: ReplayedStart[]
}

/** A replay that was not over when the program was goes on for no longer than this. */
const replayTimeoutMs = 120_000

/** A has an image and runs a program of it; hosts behind a slow link mount it from A, and run the program. */
export async function runReplay(image: LabImage, options: ReplayScenarioOptions): Promise<ReplayOutcome> {
  const { rateBitsPerSecond, program, rounds, tell = () => undefined, signal } = options
  const abort = { ...(signal && { signal }) }
  await using network = await Network.create(abort)
  const registry = await Registry.start(await network.addHost('registry'), abort)
  const reference = await registry.push(image, 'lab/image:1', abort)
  await using a = await NodeProcess.start(await network.addHost('a'), { insecureRegistries: [registry.authority], ...abort })
  await a.seed(reference, abort)
  await startOn(a, reference, program, abort)
  const outcome: ReplayOutcome = { rootfsBytes: 0, without: [], with: [] }
  for (let round = 0; round < rounds; round++) {
    for (const bootProfiles of [false, true]) {
      const host = await network.addHost(`${bootProfiles ? 'with' : 'without'}${round}`, { rateBitsPerSecond, ...abort })
      await using node = await NodeProcess.start(host, { bootstrap: [a], bootProfiles, ...abort })
      await node.whenStatus('has met A', ({ peers }) => peers.length > 0, { timeoutMs: 20_000, ...abort })
      const { rootfsBytes, ...start } = await startOn(node, reference, program, abort)
      outcome.rootfsBytes = rootfsBytes
      outcome[bootProfiles ? 'with' : 'without'].push(start)
      tell(`${bootProfiles ? 'with' : 'without'} replay: ready after ${(start.readyMs / 1000).toFixed(1)} s, ${(start.receivedBytes / 1e6).toFixed(1)} MB received`)
    }
  }
  return outcome
}

async function startOn(node: NodeProcess, reference: string, program: readonly string[], abort: { signal?: AbortSignal }): Promise<ReplayedStart & { rootfsBytes: number }> {
  const directory = join(node.host.directory, 'tree')
  await mkdir(directory)
  await dropPageCache(abort)
  const received = async (host: LabHost): Promise<number> => (await host.traffic(abort)).receivedBytes
  const before = await received(node.host)
  const startedAt = performance.now()
  const { sizeBytes: rootfsBytes } = JSON.parse(await node.cli(['mount', reference, directory, '--as', 'tree', '--json'], abort)) as { sizeBytes: number }
  await node.host.run('chroot', [directory, ...program], abort)
  const readyMs = performance.now() - startedAt
  const receivedBytes = (await received(node.host)) - before
  const isOver = (profile: BootReplay | undefined): boolean => profile === undefined || profile.done.chunks === profile.total.chunks
  const { fetched, mounts } = await node.whenStatus('the replay is over', (status) => status.mounts.every(({ profile }) => isOver(profile)), { timeoutMs: replayTimeoutMs, ...abort })
  await node.unmount(directory, abort)
  return { readyMs, receivedBytes, fetchedBytes: fetched.peer.bytes + fetched.registry.bytes, profile: mounts[0]?.profile, rootfsBytes }
}
