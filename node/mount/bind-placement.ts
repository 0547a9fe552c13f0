import { stat } from 'node:fs/promises'
import { P2pfsError } from '../../protocol/errors.ts'
import { readMounts } from './mountinfo.ts'
import { runTool } from './run-tool.ts'

/** Bind mounts of a rootfs's directory onto the directory that the user names. */
export class BindPlacement {
  readonly #mountPoint: string

  /** @param mountPoint where the FUSE filesystem is mounted */
  constructor({ mountPoint }: { mountPoint: string }) {
    this.#mountPoint = mountPoint
  }

  /** Directories on which part of the FUSE filesystem is mounted. */
  async standing(): Promise<Set<string>> {
    const mounts = await readMounts()
    const device = mounts.findLast(({ mountPoint }) => mountPoint === this.#mountPoint)?.device
    return new Set(mounts.filter((mount) => mount.device === device && mount.mountPoint !== this.#mountPoint).map(({ mountPoint }) => mountPoint))
  }

  /** @throws missing where there is no such directory; conflict where it is taken; unavailable where mount(8) fails */
  async place(source: string, directory: string, { signal }: { signal: AbortSignal }): Promise<void> {
    if ((await this.standing()).has(directory)) {
      throw new P2pfsError('conflict', `${directory} is a mount already; umount it first`, { directory })
    }
    const found = await stat(directory).catch(() => undefined)
    if (found === undefined) throw new P2pfsError('missing', `no such directory: ${directory}; make it first`, { directory })
    if (!found.isDirectory()) throw new P2pfsError('conflict', `not a directory: ${directory}`, { directory })
    signal.throwIfAborted()
    const result = await runTool('mount', ['--bind', source, directory])
    if (!result.ok) throw new P2pfsError('unavailable', `cannot mount on ${directory}: ${result.message}`, { directory })
  }

  /** @throws conflict where it is in use */
  async remove(directory: string): Promise<void> {
    const result = await runTool('umount', [directory])
    if (result.ok || !(await this.standing()).has(directory)) return
    throw new P2pfsError('conflict', `cannot umount ${directory}: ${result.message}; stop what uses its rootfs.img (losetup -a, fuser -m) and try again`, {
      directory,
    })
  }
}
