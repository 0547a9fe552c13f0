import { digestHex, type Digest } from '../../protocol/digest.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { MountReport, MountWarning } from '../control/api.ts'
import { sizeOf } from './inspect.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { WholeReads } from '../layers/whole-reads.ts'
import type { Holdings } from '../store/holdings.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'

export interface MountReportParts {
  mounts: Mounts
  holdings: Pick<Holdings, 'localBytes'>
  wholeReads: Pick<WholeReads, 'of'>
  /** Whether no peer is connected, though there are or were some. */
  isAlone: () => boolean
}

/** How the reads of a mounted rootfs fare: how much is here, where it came from, what a user would not expect. */
export function reportMount(
  digest: Digest,
  manifest: RootfsManifest,
  { mounts, holdings, wholeReads, isAlone }: MountReportParts,
): MountReport {
  const sizeBytes = sizeOf(manifest)
  const here = holdings.localBytes(tablesOf(manifest))
  const warnings: MountWarning[] = []
  const whole = manifest.layers.flatMap(({ diffId, chunks }) => {
    const read = wholeReads.of(chunks.id)
    return read === undefined ? [] : [{ layer: diffId, ...read }]
  })
  if (whole.length > 0) warnings.push('whole-layers')
  if (here < sizeBytes && isAlone()) warnings.push('peers-lost')
  const profile = mounts.profile(digest)
  const none = { bytes: 0, chunks: 0 }
  return {
    sizeBytes,
    localBytes: here,
    fetched: mounts.image(digestHex(digest))?.arrivals() ?? { peer: none, registry: none },
    ...(profile && { profile }),
    warnings,
    wholeReads: whole,
  }
}
