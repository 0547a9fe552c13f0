import type { Digest } from '../../protocol/digest.ts'
import { chunkRequests, tablesOf } from '../model/rootfs-chunks.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import type { ImageUses } from './image-uses.ts'

/** The scores of what was here before this process lie in this range, below those of what it has seen used. */
const [least, greatest] = [32, 60]

/**
 * Scores the chunks that nothing is known of by the last use of their images: a process keeps the scores of chunks in
 * memory only.
 */
export async function primeScores({
  uses,
  catalog,
  chunks,
}: {
  uses: Pick<ImageUses, 'inOrder'>
  catalog: Pick<Catalog, 'rootfs'>
  chunks: Pick<ChunkStore, 'scoreOf' | 'setScore'>
}): Promise<void> {
  const order: Digest[] = uses.inOrder()
  for (const [i, rootfs] of order.entries()) {
    const manifest = await catalog.rootfs(rootfs)
    const score = least + ((i + 1) / order.length) * (greatest - least)
    for (const { digest } of manifest === undefined ? [] : chunkRequests(tablesOf(manifest))) {
      const known = chunks.scoreOf(digest)
      if (known !== undefined && known < score) chunks.setScore(digest, score)
    }
  }
}
