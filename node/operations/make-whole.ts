import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { ChunkRequest, FetchedChunk, FetchPriority } from '../model/chunk-request.ts'
import { chunkRequests, tablesOf } from '../model/rootfs-chunks.ts'

/** How far a seed is, in bytes of the rootfs. */
export interface SeedProgress {
  doneBytes: number
  totalBytes: number
}

export interface SeedParts {
  has: (digest: Digest) => boolean
  fetch: (request: ChunkRequest, options: { signal: AbortSignal; priority: FetchPriority }) => Promise<FetchedChunk>
  /** Resolves when all chunks fetched so far are on the disk. */
  settled: () => Promise<void>
}

/** Chunks asked for at once; the fetcher decides how many of them are under way. */
const chunksAhead = 64

/**
 * Fetches every chunk of the rootfs that this host lacks; resolves when the image is whole on its disk.
 * @throws what the fetch throws, at the first chunk that nobody delivers; what was fetched stays
 */
export async function seedRootfs(
  manifest: RootfsManifest,
  parts: SeedParts,
  { signal, onProgress }: { signal: AbortSignal; onProgress?: ((progress: SeedProgress) => void) | undefined },
): Promise<void> {
  const tables = tablesOf(manifest)
  const progress = { doneBytes: 0, totalBytes: tables.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) }
  const work = chunkRequests(tables)
  const failed = new AbortController()
  const either = AbortSignal.any([signal, failed.signal])
  const worker = async (): Promise<void> => {
    for (const request of work) {
      either.throwIfAborted()
      if (!parts.has(request.digest)) await parts.fetch(request, { signal: either, priority: 'background' })
      progress.doneBytes += request.lengthBytes
      onProgress?.(progress)
    }
  }
  try {
    await Promise.all(Array.from({ length: chunksAhead }, worker))
  } catch (error) {
    failed.abort(error)
    throw error
  }
  await parts.settled()
  for (const request of chunkRequests(tables)) {
    if (parts.has(request.digest)) continue
    throw new P2pfsError(
      'unavailable',
      'a fetched chunk could not be kept; the log says why (is the disk full?); then seed again',
      { digest: request.digest },
    )
  }
}
