import { closeSync, openSync } from 'node:fs'
import type { Log } from '../base/log.ts'
import { makePrivateDirectory } from '../base/private-directory.ts'
import { sourceOf } from '../mount/placement/filesystem-source.ts'
import { readMounts, type MountInfo } from '../mount/placement/mountinfo.ts'
import { runTool } from '../mount/placement/run-tool.ts'

/**
 * Options with the most that each may take: records of thousands of mounts, a page each, and writes of the catalog while the disk is
 * full. Only the files that are there take memory.
 */
const tmpfsOptions = 'mode=700,size=128m,nr_inodes=32768,nosuid,nodev,noexec'

/** O_PATH of open(2), which node:fs does not name: x86 and arm64 have the same value. */
const openPath = 0o10000000

/**
 * Directories below the state directory that a mount is made with, each a tmpfs: a full disk fails no mount. A reboot ends them
 * with all mounts.
 */
export class MemoryDirectories {
  readonly #log: Log
  readonly #directories: readonly string[]
  /** Keep them in use, so that umount(8) refuses to take them away. */
  readonly #pins = new Map<string, number>()

  /** @param options `directories`: without symbolic links */
  constructor({ log }: { log: Log }, { directories }: { directories: readonly string[] }) {
    this.#log = log
    this.#directories = directories
  }

  /** Whether a mount is one of them. */
  isOne({ mountPoint, type }: Pick<MountInfo, 'mountPoint' | 'type'>): boolean {
    return type === 'tmpfs' && this.#directories.includes(mountPoint)
  }

  /** Mounts those that are not there yet, unless something is mounted below: an earlier version has done that, on the disk. */
  async mount(): Promise<void> {
    for (const directory of this.#directories) {
      const mounts = await readMounts()
      const isThere = mounts.some((mount) => mount.mountPoint === directory && this.isOne(mount))
      if (!isThere && mounts.some(({ mountPoint }) => mountPoint.startsWith(`${directory}/`))) continue
      if (!isThere && !(await this.#mountOne(directory))) continue
      // Opening a path alone asks nobody anything.
      const pin = openSync(directory, openPath)
      const former = this.#pins.get(directory)
      if (former !== undefined) closeSync(former)
      this.#pins.set(directory, pin)
    }
  }

  async unmount(): Promise<void> {
    for (const fd of this.#pins.values()) closeSync(fd)
    this.#pins.clear()
    for (const mount of (await readMounts()).filter((each) => this.isOne(each)).toReversed()) {
      const { ok, message } = await runTool('umount', [mount.mountPoint])
      if (!ok) this.#log.warn('directory in memory cannot be removed', { directory: mount.mountPoint, reason: message })
    }
  }

  async #mountOne(directory: string): Promise<boolean> {
    await makePrivateDirectory(directory)
    const source = sourceOf(directory)
    const { ok, message } = await runTool('mount', ['-i', '-t', 'tmpfs', '-o', tmpfsOptions, source, directory])
    if (!ok)
      this.#log.warn('directory is on the disk, not in memory: where the disk is full, mounts will fail', {
        directory,
        reason: message,
      })
    return ok
  }
}
