import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { makePrivateDirectory } from '../base/private-directory.ts'
import { systemError } from '../base/system-error.ts'
import { limitReadAhead } from '../mount/placement/kernel-read-ahead.ts'
import { readMounts } from '../mount/placement/mountinfo.ts'
import { sourceOf } from '../mount/placement/filesystem-source.ts'
import { lastingMounts, ownMounts, type OwnMount } from '../mount/placement/own-mounts.ts'
import { runTool, toolEnvironment } from '../mount/placement/run-tool.ts'
import { MemoryDirectories } from './memory-directories.ts'

/** O_PATH of open(2), which node:fs does not name: x86 and arm64 have the same value. */
const openPath = 0o10000000

export interface FuseMountOptions {
  stateDir: string
  mountPoint: string
  /** Directories below which the daemon mounts what it needs. */
  mountRoots: readonly string[]
  /** The one of them whose mounts need no daemon: a supervisor that was killed leaves them to the next. */
  lastingRoot: string
  /** Directories that are to be in memory. */
  memoryDirectories: readonly string[]
}

/** The FUSE filesystem, its descriptor of /dev/fuse, and all that is mounted of it. */
export class FuseMount {
  readonly #log: Log
  readonly #options: FuseMountOptions
  #fd: number | undefined
  /** Keeps the mount point in use, so that umount(8) refuses to take it away from under the daemon. */
  #pin: number | undefined
  readonly #memory: MemoryDirectories

  constructor({ log }: { log: Log }, options: FuseMountOptions) {
    this.#log = log
    this.#options = options
    this.#memory = new MemoryDirectories({ log }, { directories: options.memoryDirectories })
  }

  /** Descriptor of /dev/fuse; undefined while nothing is mounted. */
  get fd(): number | undefined {
    return this.#fd
  }

  /** Whether something of ours is mounted on a directory of a user. */
  async hasUsers(): Promise<boolean> {
    return (await this.#own()).some(({ bound }) => bound)
  }

  /**
   * Takes over the descriptor of a mount that another supervisor has made.
   * @returns whether its mount stands, or was unmounted by hand and goes on elsewhere; otherwise the descriptor is closed
   */
  async adopt(fd: number): Promise<boolean> {
    const stands = await this.#stands()
    if (!stands && !(await this.#isNeeded()) && !(await isMounted(fd))) {
      closeSync(fd)
      return false
    }
    this.#fd = fd
    if (stands) this.#holdMountPoint()
    await this.#memory.mount()
    return true
  }

  /**
   * Mounts, after it has removed what a supervisor left that is gone.
   * @throws invalid, unavailable or unsupported if the state directory or FUSE cannot be used
   */
  async mount(): Promise<void> {
    const { mountPoint } = this.#options
    await this.#detach('left by a daemon that is gone')
    await makePrivateDirectory(mountPoint).catch((error: unknown) => {
      throw systemError(`cannot use the state directory ${this.#options.stateDir}`, error)
    })
    await this.#memory.mount()
    try {
      this.#fd = openSync('/dev/fuse', 'r+')
    } catch (cause) {
      throw new P2pfsError(
        'unsupported',
        `cannot open /dev/fuse: ${(cause as Error).message}; ` +
          'run as root with the fuse module loaded, or use --fuse-driver native',
        { cause },
      )
    }
    // Not default_permissions: who may open an image is decided by the daemon, and not by a mode.
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other,ro,nosuid,nodev'
    const child = spawn('mount', ['-i', '-t', 'fuse.p2pfs', '-o', options, sourceOf(mountPoint), mountPoint], {
      stdio: ['ignore', 'ignore', 'pipe', this.#fd],
      env: toolEnvironment(),
    })
    let message = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (message += text))
    const [status] = (await once(child, 'close')) as [number | null]
    if (status !== 0)
      throw new P2pfsError('unavailable', `cannot mount FUSE on ${mountPoint}: ${message.trim()}`, { mountPoint })
    this.#holdMountPoint()
    await limitReadAhead(mountPoint).catch((error: unknown) =>
      this.#log.warn('read-ahead of the kernel cannot be limited; cold starts fetch more than they need', { error }),
    )
  }

  /**
   * Mounts again if somebody has unmounted the FUSE filesystem by hand, which ends it once nothing else is mounted of
   * it.
   * @returns whether it did
   */
  async mountAgain(): Promise<boolean> {
    const { mountPoint } = this.#options
    if (await this.#stands()) return false
    if ((await this.#isNeeded()) || (this.#fd !== undefined && (await isMounted(this.#fd)))) {
      this.#log.error(
        'FUSE filesystem was unmounted by hand; present mounts go on, new ones fail until p2pfs is restarted',
        { mountPoint },
      )
      return false
    }
    this.#log.warn('FUSE filesystem was unmounted by hand; mounted again', { mountPoint })
    this.#close()
    await this.mount()
    return true
  }

  /** Unmounts the FUSE filesystem and everything that is mounted of it, and what needs no daemon, too. */
  async unmount(): Promise<void> {
    // Descriptors first: reads of files that are still open then fail instead of waiting for ever.
    this.#close()
    await this.#detach(undefined)
    await this.#memory.unmount()
  }

  #close(): void {
    for (const fd of [this.#fd, this.#pin]) if (fd !== undefined) closeSync(fd)
    this.#fd = undefined
    this.#pin = undefined
  }

  /** All that is mounted here and of it, but for the directories in memory. */
  async #own(): Promise<OwnMount[]> {
    const { mountPoint, mountRoots } = this.#options
    return (await ownMounts([mountPoint, ...mountRoots])).filter((mount) => !this.#memory.isOne(mount))
  }

  /** Whether a user's mount may stand on the FUSE filesystem, which may have no mount of its own any more. */
  async #isNeeded(): Promise<boolean> {
    const own = await this.#own()
    const lasting = new Set(lastingMounts(own, this.#options.lastingRoot))
    return own.some((mount) => mount.bound && !lasting.has(mount))
  }

  async #stands(): Promise<boolean> {
    return (await readMounts()).some(({ mountPoint }) => mountPoint === this.#options.mountPoint)
  }

  #holdMountPoint(): void {
    // Opening a path alone asks the daemon nothing.
    this.#pin = openSync(this.#options.mountPoint, openPath)
  }

  /** @param why another supervisor has left it, and mounts that need none stay; logged for each other mount */
  async #detach(why: string | undefined): Promise<void> {
    const own = await this.#own()
    const lasting = new Set(why === undefined ? [] : lastingMounts(own, this.#options.lastingRoot))
    // In reverse order of mounting.
    for (const mount of own.toReversed()) {
      if (lasting.has(mount)) continue
      if (why !== undefined) this.#log.warn('mount removed', { directory: mount.mountPoint, why })
      const result = await runTool('umount', [mount.mountPoint])
      if (result.ok) continue
      const lazy = await runTool('umount', ['-l', mount.mountPoint])
      this.#log.warn(lazy.ok ? 'mount was in use; detached' : 'mount cannot be removed', {
        directory: mount.mountPoint,
        reason: result.message,
      })
    }
  }
}

/**
 * Whether anything is mounted of the filesystem that a descriptor of /dev/fuse serves; false where the kernel does not say
 * which one that is: older ones do not.
 */
async function isMounted(fd: number): Promise<boolean> {
  const info = await readFile(`/proc/self/fdinfo/${fd}`, 'utf8')
  const [, connection] = /^fuse_connection:\s*(\d+)$/m.exec(info) ?? []
  return connection !== undefined && (await readMounts()).some(({ device }) => device === `0:${connection}`)
}
