import { mkdir, readdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '../../test/support/deadline.ts'
import { createRandom } from '../../test/support/random.ts'
import { Network } from '../hosts/network.ts'
import { differences, describeDifferences } from '../images/tree-compare.ts'
import { readTree } from '../images/directory-tree.ts'
import { Registry } from '../registry/registry.ts'
import { chooseAction } from './actions.ts'
import { ChaosHost } from './chaos-host.ts'
import { Journal, maxFindings, type Finding } from './journal.ts'
import type { FaultName } from './faults.ts'
import { compareLists, unmount } from './mount-actions.ts'
import { Outages } from './outages.ts'
import { Reading } from './reading.ts'
import { chaosImages, recordTruth } from './truth.ts'
import { describeMount, readDeadlineMs, Undo, type World } from './world.ts'

export interface ChaosOptions {
  /** Chooses the actions. The same seed gives the same sequence, though not the same moments. */
  seed: number
  /** How long actions go on, without set-up and final checks. */
  seconds: number
  /** Faults that the run does without. */
  off: readonly FaultName[]
  /** Leaves out the large image, whose set-up takes a minute on a busy machine. */
  isSmall?: boolean
  /** The logs of the daemons are copied to this directory. */
  logDirectory?: string
  /** Receives the log: a line for each action, a line of JSON for each finding. */
  tell?: (line: string) => void
}

export interface ChaosOutcome {
  findings: Finding[]
  actions: number
  reads: number
  readBytes: number
  /** Reads that failed, as they may while all sources are away. */
  failedReads: number
}

/** Pauses between actions (ms). */
const pauseMs = { min: 30, max: 500 } as const
/** Requests that may wait on one host; more actions on it are left out. */
const maxPending = 3
const meetTimeoutMs = 30_000
/** A limit for deletions in the background (ms). */
const tidyTimeoutMs = 30_000
/** The pause after the last fault, in which daemons find the registry again. */
const calmMs = 3_000

/**
 * Two hosts and a registry. Random actions and faults strike both hosts while readers compare all bytes with the truth.
 *
 * 1. The second host seeds all images, and their bytes are recorded: drives as they read, trees as umoci unpacks them.
 * 2. Actions are chosen by the seed, until the time is up.
 * 3. All faults end. Every mount is read whole, and ended. Nothing may be left.
 */
export async function runChaos(options: ChaosOptions): Promise<ChaosOutcome> {
  const { seed, seconds, off, isSmall = false, logDirectory, tell = () => undefined } = options
  await using network = await Network.create()
  const journal = new Journal(tell)
  const registry = await Registry.start(await network.addHost('registry'))
  const hosts = [new ChaosHost(await network.addHost('a')), new ChaosHost(await network.addHost('b'))]
  const [a, b] = hosts as [ChaosHost, ChaosHost]
  await a.useOwnDisk(join(network.directory, 'disk.img'))
  const daemon = {
    insecureRegistries: [registry.authority],
    env: { P2PFS_READ_DEADLINE: `${readDeadlineMs / 1000}s`, P2PFS_LOG_LEVEL: 'info' },
  }
  await b.start(daemon)
  const truth = { registry, node: b.node, directory: join(network.directory, 'truth') }
  const images = await recordTruth(await chaosImages({ isSmall }), truth)
  await a.start({ ...daemon, bootstrap: [b.node] })
  await a.node.whenStatus('has met B', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs })
  const writtenDirectory = join(network.directory, 'written')
  await mkdir(writtenDirectory)
  const registryOutages = new Outages()
  const world: World = { hosts, registry, images, journal, registryOutages, writtenDirectory, undo: new Undo() }

  const reading = new Reading(world)
  reading.start(seed)
  const count = await act(world, { seed, seconds, off })
  await world.undo.all()
  for (const host of hosts) await host.inTurn(async () => undefined)
  await world.undo.all()
  await reading.stop()
  await sleep(calmMs)
  for (const host of hosts) await finish(world, reading, host)
  for (const host of hosts) await stop(world, host)
  if (logDirectory !== undefined) await keepLogs(world, logDirectory)
  const { reads, bytes: readBytes, failedReads } = reading
  if (journal.dropped > 0) tell(`${journal.dropped} more findings were not told.`)
  return { findings: journal.findings, actions: count, reads, readBytes, failedReads }
}

/** @returns how many actions were chosen */
async function act(world: World, { seed, seconds, off }: Omit<ChaosOptions, 'tell'>): Promise<number> {
  const isOn = (fault: FaultName): boolean => !off.includes(fault)
  const random = createRandom(seed)
  const end = performance.now() + seconds * 1000
  let count = 0
  for (; performance.now() < end && world.journal.findings.length < maxFindings; count++) {
    const action = chooseAction(random)
    const host = world.hosts[random.below(world.hosts.length)]!
    const own = createRandom(random.below(2 ** 31))
    await sleep(pauseMs.min + random.below(pauseMs.max - pauseMs.min))
    if (action.fault !== undefined && !isOn(action.fault)) continue
    const task = async (): Promise<void> => {
      try {
        await action.act(world, host, own, isOn)
      } catch (error) {
        world.journal.found('operation-failed', host.name, `${action.name}: ${(error as Error).stack ?? String(error)}`)
      }
    }
    if (action.inTurn === undefined) await task()
    else if (host.pending < maxPending) void host.inTurn(task)
  }
  return count
}

/** Reads and ends all mounts of a host without any fault. */
async function finish(world: World, reading: Reading, host: ChaosHost): Promise<void> {
  const { journal } = world
  journal.action(host.name, `read and end ${host.mounts.size} mounts`)
  if ((await host.status()) === undefined) {
    journal.found('daemon-gone', host.name, 'no daemon answers at the end')
    return
  }
  await compareLists(world, host)
  for (const mount of host.mounts.values()) {
    await reading.readAll(host, mount)
    if (mount.request.as !== 'tree' || mount.request.writable === true) continue
    const found = differences(mount.image.tree, await readTree(host.pathOf(mount)))
    // Nobody describes the root of some images: umoci's is as old as the unpacking.
    const unexpected = found.filter(({ path, aspect }) => path !== '' || aspect !== 'mtime')
    if (unexpected.length > 0)
      journal.found('wrong-bytes', host.name, `${describeMount(mount)}: ${describeDifferences(unexpected, 5)}`)
  }
  for (const [key, mount] of host.mounts) await unmount(world, host, key, mount)
  await eventually('all is tidied up', async () => (await leftFiles(host)).length === 0 || undefined, {
    timeoutMs: tidyTimeoutMs,
  }).catch(async () => journal.found('left-over', host.name, `files: ${(await leftFiles(host)).join(', ')}`))
  const expected = [host.stateDirectory, ...['mnt', 'trees', 'run'].map((name) => join(host.stateDirectory, name))]
  const leftMounts = (): string[] => host.kernelMounts().filter((path) => !expected.includes(path))
  // A daemon that has just been started makes a trial mount, for a moment.
  await eventually('no other mount stands', async () => leftMounts().length === 0 || undefined, {
    timeoutMs: tidyTimeoutMs,
  }).catch(() => journal.found('left-over', host.name, `mounts: ${leftMounts().join(', ')}`))
}

async function stop(world: World, host: ChaosHost): Promise<void> {
  const found = (what: string, left: string[]): void => {
    if (left.length > 0) world.journal.found('left-over', host.name, `${what}: ${left.join(', ')}`)
  }
  await host.node.stop().catch((error: unknown) => found('supervisor', [String(error)]))
  found(
    'mounts after the end',
    host.kernelMounts().filter((path) => path !== host.stateDirectory),
  )
  found('loop devices', await loopDevicesBelow(host.host.directory))
  found('processes', await processesOf(host.host.directory))
}

async function keepLogs({ hosts }: World, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true })
  for (const { node, name } of hosts) await writeFile(join(directory, `${name}.log`), await node.log())
}

/** Files that the daemon keeps for mounts, below its state directory. */
async function leftFiles(host: ChaosHost): Promise<string[]> {
  const left: string[] = []
  for (const folder of ['writable', 'scratch', 'drives', 'trees', 'chunks/incoming']) {
    const names = await readdir(join(host.stateDirectory, folder)).catch(() => [])
    left.push(...names.map((name) => `${folder}/${name}`))
  }
  return left
}

async function loopDevicesBelow(directory: string): Promise<string[]> {
  const found: string[] = []
  for (const name of await readdir('/sys/block')) {
    if (!name.startsWith('loop')) continue
    const file = (await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '')).trim()
    if (file.startsWith(`${directory}/`)) found.push(`${name} of ${file}`)
  }
  return found
}

/** Processes that have a directory in their arguments or as their own. */
async function processesOf(directory: string): Promise<string[]> {
  const found: string[] = []
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue
    const line = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ')
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '')
    if (line.includes(`${directory}/`) || cwd.startsWith(directory)) found.push(`${pid} ${line}`)
  }
  return found
}
