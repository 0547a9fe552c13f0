import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { DiskTemplates } from './disk-template.ts'

/** Second, writable drives of VMs: a file each, which ends with its mount. */
export class ScratchDrives {
  readonly #templates: DiskTemplates
  readonly #directory: string

  constructor({ templates }: { templates: DiskTemplates }, { directory }: { directory: string }) {
    this.#templates = templates
    this.#directory = directory
  }

  path(id: string): string {
    return join(this.#directory, id, 'scratch.img')
  }

  /** An empty drive, in place of the one that there was. @throws as {@link DiskTemplates.copyTo} */
  async make(id: string, sizeBytes: number, options: { signal: AbortSignal }): Promise<string> {
    await mkdir(join(this.#directory, id), { recursive: true, mode: 0o700 })
    await this.#templates.copyTo(this.path(id), sizeBytes, options)
    return this.path(id)
  }

  async remove(id: string): Promise<void> {
    await rm(join(this.#directory, id), { recursive: true, force: true })
  }

  /** Removes those of no mount. */
  async tidy(ids: ReadonlySet<string>): Promise<void> {
    for (const id of await readdir(this.#directory).catch(() => [])) if (!ids.has(id)) await this.remove(id)
  }
}
