import type { Digest } from '../../protocol/digest.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { MountReport, MountWarning } from '../control/api.ts'
import { sizeOf } from './inspect.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { Holdings } from '../store/holdings.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'

export interface MountReportParts {
  mounts: Pick<Mounts, 'rootfs' | 'bootReplay'>
  holdings: Pick<Holdings, 'localBytes'>
  /** Whether the region has been read whole from a registry since the daemon started. */
  isStreamed: (table: Digest) => boolean
  /** Whether no peer is connected, though there are or were some. */
  isAlone: () => boolean
}

/** How the reads of a mounted rootfs fare: how much is here, where it came from, what a user would not expect. */
export function reportMount(
  digest: Digest,
  manifest: RootfsManifest,
  { mounts, holdings, isStreamed, isAlone }: MountReportParts,
): MountReport {
  const sizeBytes = sizeOf(manifest)
  const here = holdings.localBytes(tablesOf(manifest))
  const warnings: MountWarning[] = []
  if (manifest.layers.some(({ chunks }) => isStreamed(chunks.id))) warnings.push('whole-layers')
  if (here < sizeBytes && isAlone()) warnings.push('peers-lost')
  const profile = mounts.bootReplay(digest)
  const none = { bytes: 0, chunks: 0 }
  return {
    sizeBytes,
    localBytes: here,
    fetched: mounts.rootfs(digest)?.arrivals() ?? { peer: none, registry: none },
    ...(profile && { profile }),
    warnings,
  }
}
