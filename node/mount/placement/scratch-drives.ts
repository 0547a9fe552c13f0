import { chmod, chown, mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { Log } from '../../base/log.ts'
import type { Owner } from '../../model/owner.ts'
import type { DiskTemplates } from './disk-template.ts'
import type { UseCheck } from './use-check.ts'

export interface ScratchDrivesParts {
  templates: Pick<DiskTemplates, 'copyInto' | 'copyTo'>
  uses: Pick<UseCheck, 'ofFile'>
  log: Log
}

interface ScratchOptions {
  owner?: Owner | undefined
  signal: AbortSignal
}

/** Second, writable drives of VMs: a file each, which ends with its mount. */
export class ScratchDrives {
  readonly #parts: ScratchDrivesParts
  readonly #directory: string

  constructor(parts: ScratchDrivesParts, { directory }: { directory: string }) {
    this.#parts = parts
    this.#directory = directory
  }

  path(id: string): string {
    return join(this.#directory, id, 'scratch.img')
  }

  /**
   * Makes an empty drive.
   * @param options `owner`: whose the file is; root's by default
   * @throws as {@link DiskTemplates.copyTo}
   */
  async make(id: string, sizeBytes: number, { owner, signal }: ScratchOptions): Promise<string> {
    const path = this.path(id)
    await mkdir(join(this.#directory, id), { recursive: true, mode: 0o700 })
    await this.#parts.templates.copyTo(path, sizeBytes, { signal })
    if (owner !== undefined) await chown(path, owner.uid, owner.gid)
    return path
  }

  /**
   * Empties a drive. Its file stays the same one, which may be bound to other places, as in a jail.
   * @throws conflict if somebody has it open, and as {@link DiskTemplates.copyInto}
   */
  async empty(id: string, sizeBytes: number, { owner, signal }: ScratchOptions): Promise<void> {
    await this.refuseInUse(id)
    const path = this.path(id)
    await this.#parts.templates.copyInto(path, sizeBytes, { signal })
    if (owner !== undefined) await chown(path, owner.uid, owner.gid)
    await chmod(path, 0o600)
  }

  /** @throws conflict if somebody has the drive open */
  async refuseInUse(id: string): Promise<void> {
    const path = this.path(id)
    if ((await this.#parts.uses.ofFile(path)) === 'in use')
      throw new P2pfsError(
        'conflict',
        `the scratch drive ${path} is in use; stop what uses it (fuser ${path}, losetup -j ${path}) and try again`,
        { path },
      )
  }

  /** Removes a drive, unless somebody has it open: it then stays until {@link tidy}. */
  async remove(id: string): Promise<void> {
    const use = await this.#parts.uses.ofFile(this.path(id))
    if (use === 'free') await rm(join(this.#directory, id), { recursive: true, force: true })
    else this.#parts.log.warn('scratch drive of an ended mount is kept', { path: this.path(id), use })
  }

  /** Removes the drives of no mount that nobody has open. */
  async tidy(ids: ReadonlySet<string>): Promise<void> {
    for (const id of await readdir(this.#directory).catch(() => [])) if (!ids.has(id)) await this.remove(id)
  }
}
