import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { MountResult, Status } from '../../node/control/api.ts'
import { guestKernelArguments, type Guest } from '../images/guest-image.ts'
import type { NodeProcess } from '../hosts/node-process.ts'
import { dropPageCache } from '../hosts/page-cache.ts'
import { ThreeHosts } from './three-hosts.ts'
import { VirtualMachine, type ConsoleLine, type Drive } from '../hosts/virtual-machine.ts'

export interface BootScenarioOptions {
  /** Rate of each host's link, bits per second; not limited if not given. */
  rateBitsPerSecond?: number
  /** Receives one line for people as each step ends. */
  tell?: (line: string) => void
  signal?: AbortSignal
}

export interface BootOutcome {
  rootfsBytes: number
  /** `p2pfs mount` on B, the whole process. */
  mountMs: number
  /** The time from the start of the VM to the line that says the application is ready. B has nothing of the image. */
  readyMs: number
  /** The same for a second VM. B has all that the first one read, on its disk and in its page cache. */
  readyAgainMs: number
  /** Bytes that B had fetched when the first VM was ready, and when it was off. */
  fetchedAtReadyBytes: number
  fetchedBytes: number
  /** Bytes that the guest read of its drive, and bytes that B's kernel read of the mount for that. */
  guestReadBytes: number
  servedBytes: number
  /** Swap that the guest has, bytes. */
  swapBytes: number
  /** The output of the guest's `df` for the scratch before anything is written. */
  scratch: { sizeBytes: number; usedBytes: number; availableBytes: number }
  b: Status
}

/** The room that the guest has on its scratch. */
export const scratchBytes = 1 << 30
const scratchSize = '1GiB'
/** A limit for each step of the guest on a busy machine. A step takes seconds on an idle one. */
const guestTimeoutMs = 120_000

/**
 * A VM boots from the rootfs:
 *
 * 1. A seeds the image from the registry.
 * 2. B has nothing of it and mounts it. A VM boots from the mount, with a scratch as its second drive.
 * 3. The guest starts its application, writes to its overlay, swaps on its scratch, and powers off.
 * 4. A second VM boots from a mount of its own.
 */
export async function runBoot(guest: Guest, options: BootScenarioOptions = {}): Promise<BootOutcome> {
  const { tell = () => undefined, signal } = options
  const abort = { ...(signal && { signal }) }
  await using lab = await ThreeHosts.start(guest.image, options)
  await lab.a.seed(lab.reference, abort)
  const { b } = await lab.join(abort)
  tell('A seeded the image from the registry, B joined the region.')

  const { drives, directory, sizeBytes: rootfsBytes, mountMs } = await mountFor('first', b, lab.reference, abort)
  tell(`B mounted it in ${mountMs.toFixed(0)} ms: ${megabytes(rootfsBytes)}.`)
  const machine = { kernel: guest.kernel, kernelArguments: guestKernelArguments }
  const wait = { timeoutMs: guestTimeoutMs, ...abort }

  await dropPageCache(abort)
  await using first = await VirtualMachine.start(b.host, { ...machine, drives })
  const { atMs: readyMs } = await first.whenLine(/^p2pfs guest ready/, wait)
  const fetchedAtReadyBytes = fetchedBy(await b.status(abort))
  tell(`A VM on B was ready after ${seconds(readyMs)}; B has ${megabytes(fetchedAtReadyBytes)} of the image.`)
  const [sizeBytes = 0, usedBytes = 0, availableBytes = 0] = numbersOf(
    await first.whenLine(/^p2pfs guest scratch: /, wait),
  )
  await first.whenLine(/^p2pfs guest overlay: written and read$/, wait)
  const [swapKibibytes = 0] = numbersOf(await first.whenLine(/^p2pfs guest swap: /, wait))
  const [guestReadBytes = 0] = numbersOf(await first.whenLine(/^p2pfs guest read: /, wait))
  await first.whenOff(wait)
  const status = await b.status(abort)
  const fetchedBytes = fetchedBy(status)
  const share = `${((100 * fetchedBytes) / rootfsBytes).toFixed(1)} %`
  tell('It wrote to its rootfs, swapped, and is off.')
  tell(`It read ${megabytes(guestReadBytes)}; B has ${megabytes(fetchedBytes)} of the image, ${share}.`)

  const again = await mountFor('second', b, lab.reference, abort)
  await using second = await VirtualMachine.start(b.host, { ...machine, drives: again.drives })
  const { atMs: readyAgainMs } = await second.whenLine(/^p2pfs guest ready/, wait)
  await second.whenOff(wait)
  tell(`A second VM on B was ready after ${seconds(readyAgainMs)}.`)
  for (const mountPoint of [again.directory, directory]) await b.unmount(mountPoint, abort)

  return {
    rootfsBytes,
    mountMs,
    readyMs,
    readyAgainMs,
    fetchedAtReadyBytes,
    fetchedBytes,
    guestReadBytes,
    servedBytes: status.served.local.bytes + status.served.peer.bytes + status.served.registry.bytes,
    swapBytes: swapKibibytes * 1024,
    scratch: { sizeBytes, usedBytes, availableBytes },
    b: status,
  }
}

/** Mounts the image, with a scratch, for one machine. */
async function mountFor(
  name: string,
  node: NodeProcess,
  reference: string,
  options: { signal?: AbortSignal },
): Promise<MountResult & { directory: string; drives: Drive[]; mountMs: number }> {
  const directory = join(node.host.directory, name)
  await mkdir(directory)
  const startedAt = performance.now()
  const printed = await node.cli(['mount', reference, directory, '--scratch', scratchSize], options)
  const mountMs = performance.now() - startedAt
  const mounted = JSON.parse(printed) as MountResult
  const drives = [{ path: mounted.rootfs, readOnly: true }]
  if (mounted.scratch !== undefined) drives.push({ path: mounted.scratch, readOnly: false })
  return { ...mounted, directory, drives, mountMs }
}

function fetchedBy({ fetched }: Status): number {
  return fetched.peer.bytes + fetched.registry.bytes
}

/** The numbers after the last colon. */
function numbersOf({ text }: ConsoleLine): number[] {
  return (text.slice(text.lastIndexOf(':')).match(/\d+/g) ?? []).map(Number)
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`
