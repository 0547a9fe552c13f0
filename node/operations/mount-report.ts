import type { Digest } from '../../protocol/digest.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { MountReport, MountWarning } from '../control/api.ts'
import type { WholeReads } from '../layers/whole-reads.ts'
import { sizeOf, tablesOf } from '../model/rootfs-chunks.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { Membership } from '../peers/membership.ts'
import type { Inventory } from '../store/inventory.ts'

export interface MountReportsParts {
  mounts: Pick<Mounts, 'rootfs' | 'bootReplay'>
  inventory: Pick<Inventory, 'localBytes'>
  wholeReads: Pick<WholeReads, 'of'>
  membership: Pick<Membership, 'isAlone'>
}

/** How the reads of mounts fare: how much of a rootfs is here, where it came from, and what a user would not expect. */
export class MountReports {
  readonly #parts: MountReportsParts

  constructor(parts: MountReportsParts) {
    this.#parts = parts
  }

  of(rootfs: Digest, manifest: RootfsManifest): MountReport {
    const { mounts, inventory, membership } = this.#parts
    const sizeBytes = sizeOf(manifest)
    const localBytes = inventory.localBytes(tablesOf(manifest))
    const wholeReads = manifest.layers.flatMap(({ diffId, chunks }) => {
      const read = this.#parts.wholeReads.of(chunks.id)
      return read === undefined ? [] : [{ layer: diffId, ...read }]
    })
    const warnings: MountWarning[] = []
    if (wholeReads.length > 0) warnings.push('whole-layers')
    if (localBytes < sizeBytes && membership.isAlone()) warnings.push('peers-lost')
    const profile = mounts.bootReplay(rootfs)
    const none = { bytes: 0, chunks: 0 }
    return {
      sizeBytes,
      localBytes,
      fetched: mounts.rootfs(rootfs)?.arrivals() ?? { peer: none, neighbour: none, registry: none },
      ...(profile && { profile }),
      warnings,
      wholeReads,
    }
  }
}
