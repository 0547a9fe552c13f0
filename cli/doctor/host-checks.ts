import { dirname, join } from 'node:path'
import type { Check } from '../../node/control/api.ts'
import { formatSize } from '../size.ts'
import type { Filesystem, Host } from './host.ts'

/** The daemon's state directory and process. The checks look at the limits of that process, not at those of the command. */
export interface CheckedDaemon {
  stateDir: string
  /** Undefined where none runs: a daemon that is started from here has the limits of this process. */
  pid: number | undefined
}

const gibibyte = 1024 ** 3
/** A sparse image, an import and the chunks of a few images (bytes). */
const leastRoomBytes = gibibyte
/** So much of a disk is to be free: seeds of others and native files leave it, too. */
const leastShare = 0.1
/** Each chunk is a file; so much of the inodes is to be free. */
const leastInodeShare = 0.05
/** Sockets of 1,024 peers, threads, worker files and mounts together. */
const wantedFiles = 8192
const leastFiles = 1024
/** A daemon of a host with many images has 250 MiB; an import of a large layer takes twice that besides. */
const wantedMemoryBytes = gibibyte
const leastMemoryBytes = gibibyte / 2

/** linux/magic.h and the filesystems' own headers. */
const filesystems: Readonly<Record<number, { name: string; problem?: string }>> = {
  0xef53: { name: 'ext4' },
  0x58465342: { name: 'XFS' },
  0x9123683e: { name: 'Btrfs' },
  0x2fc12fc1: { name: 'ZFS' },
  0x01021994: { name: 'tmpfs', problem: 'what is there is gone after a boot, and takes memory' },
  0x794c7630: { name: 'overlayfs', problem: 'it is the layer of a container, and ends with it' },
  0x6969: {
    name: 'NFS',
    problem: 'another host that uses it would damage the catalog, and an outage there stops reads here',
  },
  0x517b: { name: 'SMB', problem: 'files there have no owners and no holes' },
  0xff534d42: { name: 'SMB', problem: 'files there have no owners and no holes' },
  0xfe534d42: { name: 'SMB', problem: 'files there have no owners and no holes' },
  0x65735546: { name: 'FUSE', problem: 'a mount that waits for another program can wait for itself' },
}

/** Makes the checks that need no daemon. */
export async function checkHost(host: Host, daemon: CheckedDaemon): Promise<Check[]> {
  const filesystem = await host.filesystemOf(daemon.stateDir)
  return [
    checkKernel(host),
    await checkKernelFilesystems(host),
    await checkTools(host),
    await checkFuse(host),
    await checkLoop(host),
    ...checkDisk(filesystem, daemon.stateDir),
    await checkOpenFiles(host, daemon),
    await checkMemory(host, daemon),
  ]
}

export function checkKernel({ kernelRelease }: Pick<Host, 'kernelRelease'>): Check {
  const name = 'kernel'
  const [major = 0, minor = 0] = kernelRelease.split('.').map(Number.parseFloat)
  const isSince = (wantedMajor: number, wantedMinor: number): boolean =>
    major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
  const found = `Linux ${kernelRelease}`
  if (!isSince(5, 12))
    return {
      name,
      state: 'problem',
      found,
      advice: 'trees need mount_setattr(2), which came with Linux 5.12; use 6.12',
    }
  if (!isSince(6, 9))
    return {
      name,
      state: 'warning',
      found: `${found}: reads that wait are lost when the daemon crashes (FUSE resends them since 6.9)`,
      advice: 'use Linux 6.12 or newer',
    }
  return {
    name,
    state: 'ok',
    found: isSince(6, 12) ? found : `${found}: trees go through loop devices (EROFS is mounted from a file since 6.12)`,
  }
}

/** Filesystems of the kernel, each with what needs it. */
const kernelFilesystems = { fuse: 'all mounts', erofs: 'trees', overlay: 'writable trees' } as const

async function checkKernelFilesystems(host: Host): Promise<Check> {
  const modules = join('/lib/modules', host.kernelRelease)
  const texts = await Promise.all(
    ['/proc/filesystems', join(modules, 'modules.builtin'), join(modules, 'modules.dep')].map(host.readText),
  )
  const known = texts.join('\n')
  const missing = Object.entries(kernelFilesystems).filter(
    ([name]) => !new RegExp(`(?:^(?:nodev)?\\t${name}$|/${name}\\.ko)`, 'm').test(known),
  )
  const name = 'filesystems'
  if (missing.length === 0) return { name, state: 'ok', found: Object.keys(kernelFilesystems).join(', ') }
  return {
    name,
    state: missing.some(([each]) => each === 'fuse') ? 'problem' : 'warning',
    found: `the kernel does not know ${missing.map(([each, use]) => `${each} (for ${use})`).join(', ')}`,
    advice: `load them (modprobe -a ${missing.map(([each]) => each).join(' ')}), or use a kernel that has them`,
  }
}

/** Each tool with its package in Debian, and what is lacking without it. */
const tools: readonly { tool: string; from: string; without: string; isNeeded?: true }[] = [
  { tool: 'mount', from: 'mount', without: 'no mounts', isNeeded: true },
  { tool: 'umount', from: 'mount', without: 'no mounts', isNeeded: true },
  { tool: 'mke2fs', from: 'e2fsprogs', without: 'no scratch drives, no limits of writable trees' },
  { tool: 'tar', from: 'tar', without: 'no import of directories with all attributes' },
  { tool: 'perl', from: 'perl-base', without: 'loop devices for trees, and scratch drives that are not removed' },
]

async function checkTools(host: Host): Promise<Check> {
  const there = await Promise.all(tools.map(async ({ tool }) => await host.hasTool(tool)))
  const missing = tools.filter((_, index) => there[index] === false)
  const name = 'tools'
  if (missing.length === 0) return { name, state: 'ok', found: tools.map(({ tool }) => tool).join(', ') }
  return {
    name,
    state: missing.some(({ isNeeded }) => isNeeded === true) ? 'problem' : 'warning',
    found: missing.map(({ tool, without }) => `no ${tool}: ${without}`).join('; '),
    advice: `apt install ${[...new Set(missing.map(({ from }) => from))].join(' ')}`,
  }
}

async function checkFuse(host: Host): Promise<Check> {
  const name = '/dev/fuse'
  const opened = await host.tryOpen('/dev/fuse')
  if (opened === 'ok') return { name, state: 'ok', found: 'it can be opened' }
  if (opened === 'missing')
    return {
      name,
      state: 'problem',
      found: 'it is not there',
      advice: 'modprobe fuse; in a container: --device /dev/fuse',
    }
  return {
    name,
    state: 'problem',
    found: 'it cannot be opened by this user',
    advice: 'run as root; in a container: --device /dev/fuse --cap-add SYS_ADMIN',
  }
}

/** mount(8) puts one under the disk that bounds an upper layer, and before Linux 6.12 under a tree. */
async function checkLoop(host: Host): Promise<Check> {
  const name = 'loop devices'
  if ((await host.tryOpen('/dev/loop-control')) === 'ok') return { name, state: 'ok', found: 'they can be made' }
  return {
    name,
    state: 'warning',
    found:
      '/dev/loop-control cannot be opened: no limits of writable trees (mount --size), and before Linux 6.12 no trees',
    advice: 'modprobe loop, as root; in a container: --privileged, or its devices',
  }
}

export function checkDisk(filesystem: Filesystem | undefined, stateDir: string): Check[] {
  if (filesystem === undefined)
    return [{ name: 'disk', state: 'left-out', found: `the filesystem of ${stateDir} cannot be looked at` }]
  const { type, freeBytes, sizeBytes, files, freeFiles } = filesystem
  const kind = filesystems[type]
  const found = `${formatSize(freeBytes)} of ${formatSize(sizeBytes)} free for ${stateDir}`
  const isFull = freeBytes < leastRoomBytes
  const isLow = isFull || freeBytes < sizeBytes * leastShare
  const inodes = `${freeFiles} of ${files} inodes free`
  const isShort = files > 0 && freeFiles < files * leastInodeShare
  return [
    {
      name: 'disk',
      state: isFull ? 'problem' : isLow ? 'warning' : 'ok',
      found,
      ...(isLow && { advice: `make room, or use a larger disk with --state-dir; reads go on when it is full, unkept` }),
    },
    {
      name: 'inodes',
      state: isShort ? 'problem' : 'ok',
      found: files === 0 ? 'made as they are needed' : inodes,
      ...(isShort && { advice: 'each chunk is a file: make a filesystem with more inodes, or use XFS' }),
    },
    {
      name: 'filesystem',
      state: kind?.problem === undefined ? 'ok' : 'warning',
      found: `${stateDir} is on ${kind?.name ?? `0x${type.toString(16)}`}${kind?.problem === undefined ? '' : `: ${kind.problem}`}`,
      ...(kind?.problem !== undefined && { advice: 'put --state-dir on a local ext4, XFS or Btrfs' }),
    },
  ]
}

async function checkOpenFiles(host: Host, { pid }: CheckedDaemon): Promise<Check> {
  const name = 'open files'
  const text = await host.readText(`/proc/${pid ?? 'self'}/limits`)
  const limit = /^Max open files\s+(\S+)/m.exec(text ?? '')?.[1]
  if (limit === undefined) return { name, state: 'left-out', found: 'the limits of the daemon cannot be read' }
  const files = limit === 'unlimited' ? Infinity : Number(limit)
  const state = files < leastFiles ? 'problem' : files < wantedFiles ? 'warning' : 'ok'
  const advice = `LimitNOFILE=${wantedFiles * 8} in the unit, or ulimit -n before p2pfs daemon`
  return { name, state, found: `at most ${limit}`, ...(state !== 'ok' && { advice }) }
}

/** The least limit of the control groups above the daemon. */
async function checkMemory(host: Host, { pid }: CheckedDaemon): Promise<Check> {
  const name = 'memory'
  const own = /^0::(.*)$/m.exec((await host.readText(`/proc/${pid ?? 'self'}/cgroup`)) ?? '')?.[1]
  if (own === undefined) return { name, state: 'left-out', found: 'there is no control group of version 2' }
  let limit = Infinity
  for (let group = own; ; group = dirname(group)) {
    const text = (await host.readText(join('/sys/fs/cgroup', group, 'memory.max')))?.trim()
    if (text !== undefined && /^\d+$/.test(text)) limit = Math.min(limit, Number(text))
    if (group === '/' || group === '.') break
  }
  if (limit === Infinity) return { name, state: 'ok', found: 'no limit of a control group' }
  const state = limit < leastMemoryBytes ? 'problem' : limit < wantedMemoryBytes ? 'warning' : 'ok'
  const advice = `MemoryMax=${formatSize(wantedMemoryBytes)} or more in the unit; less with --max-layer-metadata`
  return { name, state, found: `at most ${formatSize(limit)}`, ...(state !== 'ok' && { advice }) }
}
