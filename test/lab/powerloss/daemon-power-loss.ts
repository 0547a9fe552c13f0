import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createRandom } from '../../support/random.ts'
import type { FaultRegistry } from '../../support/registry/fault-registry.ts'
import {
  compareTrees,
  registryImages,
  registryReference,
  registryTrees,
  startRegistry,
  writeTree,
} from './daemon-images.ts'
import { DaemonUnderTest } from './daemon-under-test.ts'
import { DaemonWork } from './daemon-work.ts'
import type { Filesystem } from './filesystems.ts'
import { LossyDisk, type PowerCut } from './lossy-disk.ts'
import { chunkFilesBelow } from './store-under-test.ts'

/** The power is cut at most so long after the daemon is ready (ms); once in four times, so long after its start. */
const maxWorkMs = 4_000
const maxStartMs = 2_500
/** Losses on one disk, before it is full of what was imported. */
const roundsOfDisk = 8
/** The size of the disk (MiB): a round adds some 20 MB. */
const diskMiB = 448

export interface DaemonPowerLossRound {
  seed: number
  mountedWith: string
  cut: PowerCut
  /** Whether the daemon was ready when the power was cut. */
  wasReady: boolean
  /** Chunk files that are there afterwards, and those of them that are not what their names say. */
  files: number
  damaged: number
  /** Chunks that the daemon had in doubt when it was started again. */
  doubtful: number
  /** Local images that were reported as imported. */
  imported: number
  /** Images that it knew afterwards; all were read. */
  images: number
  findings: string[]
}

/** The parts that last for all rounds. */
interface Lab {
  directory: string
  registry: FaultRegistry
  /** A host that has half of the registry's images, and its address. */
  peer: DaemonUnderTest
  peerAddress: string
}

/** The parts that last for the rounds of one disk. */
interface Host {
  disk: LossyDisk
  filesystem: Filesystem
  imported: Set<number>
  peerId?: string
  boots: number
}

/**
 * Runs daemons on a disk whose power is cut at a random instant, again and again; each round goes on with the disk as
 * the one before has left it. The disk is checked on a copy, so the next daemon finds it as the power loss has left it.
 * @param directory an empty one
 */
export async function* loseDaemonPower(
  directory: string,
  { filesystem, rounds, seed }: { filesystem: Filesystem; rounds: number; seed: number },
): AsyncGenerator<DaemonPowerLossRound> {
  const random = createRandom(seed)
  await using registry = await startRegistry(directory)
  const peer = startDaemon({ directory, registry }, 'peer', join(directory, 'peer-state'), 'peer')
  try {
    const { addresses } = await peer.ready()
    const lab: Lab = { directory, registry, peer, peerAddress: addresses[0]! }
    for (let image = 0; image < registryImages; image += 2)
      for (const format of ['erofs', 'ext4'])
        await peer.call('seed', { image: registryReference(registry, image), format })
    let host: Host | undefined
    let tree = 0
    for (let round = 0; round < rounds; round++) {
      if (round % roundsOfDisk === 0) {
        const own = mkdtempSync(join(directory, 'host-'))
        host = { disk: await LossyDisk.make(own, filesystem, diskMiB), filesystem, imported: new Set(), boots: 0 }
      }
      yield await loseOnce(lab, host!, random.below(2 ** 31), () => tree++)
    }
    // All chunks that the daemons sent it were right.
    if (/banned|broke the protocol/.test(peer.log)) throw new Error(`the peer got wrong bytes: ${peer.log}`)
  } finally {
    await peer.killAll()
  }
}

function startDaemon(
  { directory, registry, peerAddress }: Pick<Lab, 'directory' | 'registry'> & Partial<Lab>,
  name: string,
  stateDirectory: string,
  bootId: string,
): DaemonUnderTest {
  const own = join(directory, name)
  mkdirSync(own, { recursive: true })
  const argv = ['--listen', '/ip4/127.0.0.1/tcp/0', '--insecure-registry', registry.authority, '--name', name]
  if (peerAddress !== undefined) argv.push('--bootstrap', peerAddress)
  return new DaemonUnderTest({ directory: own, stateDirectory, bootId, argv })
}

async function loseOnce(lab: Lab, host: Host, seed: number, nextTree: () => number): Promise<DaemonPowerLossRound> {
  const random = createRandom(seed)
  const { disk, filesystem, imported } = host
  const mountedWith = filesystem.mountOptions[random.below(filesystem.mountOptions.length)]!
  const findings: string[] = []
  const lost = await disk.losePower({ seed, mountedWith }, async (cutPower) => {
    const daemon = startDaemon(lab, 'host', join(disk.mounted, 'state'), `boot-${host.boots++}`)
    const work = new DaemonWork({
      daemon,
      random,
      directory: lab.directory,
      registryReference: (image) => registryReference(lab.registry, image),
      imported,
      nextTree,
    })
    let wasReady = false
    const started = daemon.ready().then(({ peerId }) => {
      wasReady = true
      host.peerId ??= peerId
      checkIdentity(host, peerId, findings)
      work.start()
    })
    if (random.below(4) === 0) await Promise.race([sleep(random.below(maxStartMs)), started])
    else await started.then(async () => await sleep(random.below(maxWorkMs)))
    if (daemon.hasEnded) findings.push(`the daemon ended by itself: ${daemon.log}`)
    work.end()
    const cut = await cutPower()
    await daemon.killAll()
    await started.catch(() => undefined)
    await work.ended()
    findings.push(...work.findings, ...complaints(daemon))
    return { cut, wasReady }
  })
  const after = await disk.bootCopy(mountedWith, async () => await checkDaemon(lab, host, { findings, nextTree }))
  return { seed, mountedWith, ...lost, ...after, imported: imported.size, findings }
}

/** A host keeps the key with which it was first ready. */
function checkIdentity(host: Host, peerId: string, findings: string[]): void {
  if (host.peerId !== undefined && host.peerId !== peerId) findings.push(`the host is ${peerId} and was ${host.peerId}`)
}

/** Starts a daemon as after a boot, and says what is wrong with what it has and does. */
async function checkDaemon(
  lab: Lab,
  host: Host,
  { findings, nextTree }: { findings: string[]; nextTree: () => number },
): Promise<Pick<DaemonPowerLossRound, 'files' | 'damaged' | 'doubtful' | 'images'>> {
  const { disk, imported } = host
  const state = join(disk.mounted, 'state')
  const chunks = join(state, 'chunks')
  mkdirSync(chunks, { recursive: true, mode: 0o700 })
  const before = chunkFilesBelow(chunks)
  const daemon = startDaemon(lab, 'host', state, `boot-${host.boots}-checked`)
  try {
    const { peerId, images, mounts } = await daemon.ready()
    checkIdentity(host, peerId, findings)
    if (mounts.length > 0) findings.push(`mounts are recorded that the power loss has ended: ${JSON.stringify(mounts)}`)
    const known = new Set(images.map(({ reference }) => reference))
    for (const tree of imported)
      // It is a finding once.
      if (!known.has(`local:tree-${tree}`) && imported.delete(tree)) findings.push(`local:tree-${tree} is lost`)
    // Nobody else has local images; one that is known is whole, reported or not.
    const read = async (image: string, format: string, trees: number[]): Promise<void> => {
      const wrong = await daemon
        .whileMounted(image, format, async (directory) => await compareTrees(directory, trees))
        .catch((error: unknown) => [`${(error as Error).stack}`])
      findings.push(...wrong.map((finding) => `${image} (${format}): ${finding}`))
    }
    for (const { reference, format } of images) {
      // A name that a seed has given; the tag is read, too.
      if (reference.includes('@')) continue
      const [, tree] = /^local:tree-(\d+)$/.exec(reference) ?? []
      const [, image] = /:(\d+)$/.exec(reference) ?? []
      await read(reference, format, tree === undefined ? registryTrees(Number(image)) : [Number(tree)])
    }
    // It works on: it seeds, imports, and serves others.
    const missing = Array.from({ length: registryImages }, (_, image) => image).find(
      (image) => !known.has(registryReference(lab.registry, image)),
    )
    if (missing !== undefined) await read(registryReference(lab.registry, missing), 'erofs', registryTrees(missing))
    await checkServing(lab, daemon, nextTree(), findings)

    if (daemon.log.includes('host stopped before all chunks were synced'))
      await daemon.logged('chunks that were not synced when the host stopped are checked')
    for (const [digest, isRight] of chunkFilesBelow(chunks))
      if (!isRight) findings.push(`${digest} is damaged and was not discarded`)
    const checked = /"right":(\d+),"lost":(\d+),"unreadable":(\d+)/.exec(daemon.log)?.slice(1).map(Number) ?? []
    return {
      files: before.size,
      damaged: [...before.values()].filter((isRight) => !isRight).length,
      doubtful: checked.reduce((sum, count) => sum + count, 0),
      images: images.length,
    }
  } finally {
    findings.push(...complaints(daemon))
    await daemon.killAll()
  }
}

/** Has another host read an image that this one alone has. */
async function checkServing(lab: Lab, daemon: DaemonUnderTest, tree: number, findings: string[]): Promise<void> {
  const source = mkdtempSync(join(lab.directory, 'source-'))
  writeTree(source, tree)
  try {
    await daemon.call('import', { source, name: `served-${tree}`, format: 'erofs' })
    const compare = async (directory: string): Promise<string[]> => await compareTrees(directory, [tree])
    findings.push(...(await lab.peer.whileMounted(`local:served-${tree}`, 'erofs', compare)))
  } catch (error) {
    findings.push(`another host cannot read what this one has: ${(error as Error).stack}`)
  } finally {
    rmSync(source, { recursive: true })
  }
}

/** Log lines that a person would have to act on. The last lines are of a disk that is gone. */
function complaints(daemon: DaemonUnderTest): string[] {
  return daemon.log.split('\n').filter((line) => line.includes('"level":"error"'))
}
