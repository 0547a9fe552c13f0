import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Catalog } from '../store/catalog.ts'
import { encodeMountRecord, parseMountRecord, type MountRecord } from '../store/mount-record.ts'

const suffix = '.json'

/**
 * The records of this host's mounts, for the next daemon: a file each, by the mount's id. Their directory is in memory where
 * mounts outlive a daemon, so they end when mounts do, at a reboot, and no full disk keeps one from being written.
 */
export class MountRecords {
  readonly #catalog: Pick<Catalog, 'mounts' | 'deleteMount'>
  readonly #directory: string

  /** @param parts `catalog`: where earlier versions kept the records */
  constructor({ catalog }: { catalog: Pick<Catalog, 'mounts' | 'deleteMount'> }, { directory }: { directory: string }) {
    this.#catalog = catalog
    this.#directory = directory
  }

  /** By their directories. @param onMalformed called for each record that cannot be read, which then stays */
  async list(onMalformed: (key: string, error: unknown) => void): Promise<MountRecord[]> {
    for (const record of await this.#catalog.mounts(onMalformed)) {
      await this.put(record)
      await this.#catalog.deleteMount(record.directory)
    }
    const records: MountRecord[] = []
    for (const name of await readdir(this.#directory).catch(() => [])) {
      if (!name.endsWith(suffix)) continue
      const path = join(this.#directory, name)
      try {
        records.push(parseMountRecord(await readFile(path)))
      } catch (error) {
        onMalformed(path, error)
      }
    }
    return records.toSorted((a, b) => (a.directory < b.directory ? -1 : 1))
  }

  async put(record: MountRecord): Promise<void> {
    const path = this.#path(record)
    const partial = `${path}.partial`
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    try {
      await writeFile(partial, encodeMountRecord(record), { mode: 0o600 })
      await rename(partial, path)
    } catch (error) {
      await rm(partial, { force: true }).catch(() => undefined)
      throw error
    }
  }

  async delete(record: Pick<MountRecord, 'id'>): Promise<void> {
    await rm(this.#path(record), { force: true })
  }

  #path({ id }: Pick<MountRecord, 'id'>): string {
    return join(this.#directory, `${id}${suffix}`)
  }
}
