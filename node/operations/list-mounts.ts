import type { MountList, MountStatus } from '../control/api.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { Lies } from '../publish/lies.ts'
import type { Catalog } from '../store/catalog.ts'
import type { MountReports } from './mount-report.ts'

export interface ListMountsParts {
  catalog: Pick<Catalog, 'rootfs'>
  mounts: Pick<Mounts, 'list' | 'reads'>
  reports: MountReports
  lies: Pick<Lies, 'isContradicted'>
}

/** The mounts of this host, as `p2pfs status` shows them. */
export class ListMountsOperation {
  readonly #parts: ListMountsParts

  constructor(parts: ListMountsParts) {
    this.#parts = parts
  }

  async run(): Promise<MountList> {
    const { catalog, mounts, reports, lies } = this.#parts
    const described: MountStatus[] = []
    const reads = await mounts.reads()
    for (const record of mounts.list()) {
      const { id, platform: _platform, identity: _identity, rootfsDigest: digest, ...mount } = record
      const manifest = await catalog.rootfs(digest)
      const contradicted = lies.isContradicted(record)
      if (manifest !== undefined)
        described.push({
          ...mount,
          digest,
          reads: reads.get(id) ?? 'fuse',
          ...(contradicted && { contradicted }),
          ...reports.of(digest, manifest),
        })
    }
    return { mounts: described }
  }
}
