import { copyFile, open } from 'node:fs/promises'
import { join } from 'node:path'
import type { Status } from '../../node/control/api.ts'
import { unpackWithUmoci, type LabImage } from '../images/lab-image.ts'
import { KernelMount } from '../hosts/kernel-mount.ts'
import type { NodeProcess } from '../hosts/node-process.ts'
import { dropPageCache } from '../hosts/page-cache.ts'
import { run } from '../hosts/process.ts'
import { ThreeHosts } from './three-hosts.ts'
import { compareTrees, describeDifferences, type Difference } from '../images/tree-compare.ts'

export interface PeerReadsOptions {
  /** The number of times that B's daemon is killed while its mount is read. */
  kills: number
  /** Rate of each host's link, bits per second; not limited if not given. */
  rateBitsPerSecond?: number
  /** Receives one line for people as each step ends. */
  tell?: (line: string) => void
  signal?: AbortSignal
}

export interface PeerReadsOutcome {
  rootfsBytes: number
  seedMs: number
  /** `p2pfs mount` on B, the whole process. */
  mountMs: number
  /** The first read on B right after the mount: 4 KiB from the middle of the image. */
  firstReadMs: number
  /** The slower one of B and C, which read all of the image at the same time. */
  readAllMs: number
  b: Status
  c: Status
  /** Bytes that the registry sent after its link was cut. */
  registrySentBytes: number
  /** The kernel's view of B's rootfs, compared with umoci's tree. */
  differences: Difference[]
  /** The output of `e2fsck -fn`, if it found something. */
  fsckComplaint: string | undefined
  /**
   * The number of complete comparisons of B's mount with an earlier copy while its daemon was being killed, and those
   * that failed.
   */
  comparisons: number
  failedComparisons: string[]
  kills: number
}

const mountTimeoutMs = 30_000
const restartTimeoutMs = 30_000

/**
 * The promise of p2pfs, from end to end:
 *
 * 1. A seeds an image from the registry.
 * 2. The registry's link is cut. B and C mount the image, and read everything.
 * 3. The kernel mounts B's rootfs, and the tree equals the one that umoci unpacks.
 * 4. B's daemon is killed again and again while its mount is read. No reader notices.
 */
export async function runPeerReads(image: LabImage, options: PeerReadsOptions): Promise<PeerReadsOutcome> {
  const { kills, tell = () => undefined, signal } = options
  const abort = { ...(signal && { signal }) }
  await using lab = await ThreeHosts.start(image, options)
  const { a, registry, reference, network } = lab
  tell('A registry and the hosts A, B and C are up, each in a network namespace of its own on this machine.')

  const [seedMs] = await timed(async () => await a.seed(reference, abort))
  tell(`A seeded the image from the registry in ${seconds(seedMs)}: every chunk is on its disk.`)

  const { b, c } = await lab.join(abort)
  await registry.host.cut(abort)
  const { sentBytes: sentBefore } = await registry.host.traffic(abort)
  tell("B and C joined the region. The registry's cable is now cut.")

  const directoryOf = (node: NodeProcess): string => join(node.host.directory, 'mnt')
  const mountAbort = { signal: AbortSignal.any([AbortSignal.timeout(mountTimeoutMs), ...(signal ? [signal] : [])]) }
  const [mountMs, mounted] = await timed(async () => await b.mount(reference, directoryOf(b), mountAbort))
  tell(`B mounted it in ${milliseconds(mountMs)}: a block image of ${megabytes(mounted.sizeBytes)}.`)
  const [firstReadMs] = await timed(async () => await readPage(mounted.rootfs, mounted.sizeBytes / 2))
  tell(`The first byte that B read came after ${milliseconds(firstReadMs)}.`)

  const mountedOnC = await c.mount(reference, directoryOf(c), mountAbort)
  const [readAllMs] = await timed(async () => {
    await Promise.all([mounted, mountedOnC].map(async ({ rootfs }) => await readAll(rootfs, abort)))
  })
  const [statusB, statusC] = await Promise.all([b.status(abort), c.status(abort)])
  tell(`B and C read all of it at the same time in ${seconds(readAllMs)}.`)
  for (const [name, { fetched }] of Object.entries({ B: statusB, C: statusC })) {
    const [fromPeers, fromRegistry] = [megabytes(fetched.peer.bytes), megabytes(fetched.registry.bytes)]
    tell(`${name} has ${fromPeers} from its peers and ${fromRegistry} from the registry.`)
  }

  const fsckComplaint = await fsck(mounted.rootfs, abort)
  const expectedTree = await unpackWithUmoci(image, join(network.directory, 'umoci'), abort)
  const differences = await withKernelMount(mounted.rootfs, join(network.directory, 'kernel'), async (tree) => {
    return await compareTrees(expectedTree, tree, abort)
  })
  tell(`The kernel mounted it on B; against the tree that umoci unpacks: ${differences.length} differences.`)

  const copy = join(network.directory, 'copy.img')
  await copyFile(mountedOnC.rootfs, copy)
  const { comparisons, failedComparisons } = await compareWhileKilling(b, kills, copy, mounted.rootfs, abort)
  tell(
    `B's daemon was killed (kill -9) ${kills} times while cmp read the mount ${comparisons} times over: ` +
      `${failedComparisons.length} errors.`,
  )

  await b.unmount(directoryOf(b), abort)
  await c.unmount(directoryOf(c), abort)
  const { sentBytes } = await registry.host.traffic(abort)
  return {
    rootfsBytes: mounted.sizeBytes,
    seedMs,
    mountMs,
    firstReadMs,
    readAllMs,
    b: statusB,
    c: statusC,
    registrySentBytes: sentBytes - sentBefore,
    differences,
    fsckComplaint,
    comparisons,
    failedComparisons,
    kills,
  }
}

/** All that contradicts the promise; empty if it holds. */
export function complaints(outcome: PeerReadsOutcome): string[] {
  const found: string[] = []
  for (const [name, { fetched, served }] of Object.entries({ B: outcome.b, C: outcome.c })) {
    if (fetched.peer.bytes === 0) found.push(`${name} has nothing from its peers`)
    if (fetched.registry.bytes > 0) found.push(`${name} fetched ${fetched.registry.bytes} bytes from the registry`)
    if (served.registry.bytes > 0) found.push(`${name} served ${served.registry.bytes} bytes of the registry's`)
  }
  if (outcome.differences.length > 0)
    found.push(`B's tree differs from umoci's:\n${describeDifferences(outcome.differences)}`)
  if (outcome.fsckComplaint !== undefined) found.push(`e2fsck: ${outcome.fsckComplaint}`)
  if (outcome.kills > 0 && outcome.comparisons === 0) found.push('nothing was compared while the daemon was killed')
  return [...found, ...outcome.failedComparisons]
}

/**
 * Runs `cmp` over and over until the daemon has been killed `kills` times. Each kill waits until the daemon is back.
 */
async function compareWhileKilling(
  node: NodeProcess,
  kills: number,
  expected: string,
  actual: string,
  abort: { signal?: AbortSignal },
): Promise<{ comparisons: number; failedComparisons: string[] }> {
  const failedComparisons: string[] = []
  let comparisons = 0
  const killing = new AbortController()
  const compare = async (): Promise<void> => {
    while (!killing.signal.aborted && failedComparisons.length === 0) {
      try {
        await run('cmp', [expected, actual], abort)
        comparisons++
      } catch (error) {
        abort.signal?.throwIfAborted()
        failedComparisons.push(error instanceof Error ? error.message : String(error))
      }
    }
  }
  const comparing = compare()
  try {
    for (let kill = 0; kill < kills; kill++) {
      await dropPageCache(abort)
      const killed = await node.killDaemon(abort)
      await dropPageCache(abort)
      await node.whenStatus('is back', ({ daemonPid }) => daemonPid !== killed, {
        timeoutMs: restartTimeoutMs,
        ...abort,
      })
    }
  } finally {
    killing.abort()
    await comparing
  }
  return { comparisons, failedComparisons }
}

async function withKernelMount<T>(image: string, directory: string, use: (tree: string) => Promise<T>): Promise<T> {
  await using mount = await KernelMount.create(image, directory)
  return await use(mount.directory)
}

/** @returns its complaint, if it has one */
async function fsck(image: string, abort: { signal?: AbortSignal }): Promise<string | undefined> {
  try {
    await run('e2fsck', ['-fn', image], abort)
    return undefined
  } catch (error) {
    abort.signal?.throwIfAborted()
    return error instanceof Error ? error.message : String(error)
  }
}

async function readAll(path: string, abort: { signal?: AbortSignal }): Promise<void> {
  await run('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'status=none'], abort)
}

async function readPage(path: string, near: number): Promise<void> {
  await using file = await open(path)
  await file.read(Buffer.alloc(4096), 0, 4096, Math.floor(near / 4096) * 4096)
}

async function timed<T>(action: () => Promise<T>): Promise<[ms: number, result: T]> {
  const startedAt = performance.now()
  const result = await action()
  return [performance.now() - startedAt, result]
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
const milliseconds = (ms: number): string => `${ms.toFixed(0)} ms`
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`
