import { open, rename, rm } from 'node:fs/promises'
import { randomBytes } from 'node:crypto'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkRequest, FetchedChunk, FetchPriority } from '../model/chunk-request.ts'
import { chunkRequests, tablesOf } from '../model/rootfs-chunks.ts'

/** Chunks that are being fetched or written at once. */
const chunksAhead = 16
const zeros = Buffer.alloc(1024 * 1024)

/**
 * Writes the whole image to a file, sparse where it is zero, for what cannot use the mount. The file appears when it is
 * complete.
 * @throws unavailable where the file cannot be written; what the fetch throws
 */
export async function exportRootfs(
  manifest: RootfsManifest,
  file: string,
  parts: {
    fetch: (request: ChunkRequest, options: { signal: AbortSignal; priority: FetchPriority }) => Promise<FetchedChunk>
  },
  {
    signal,
    onProgress,
  }: { signal: AbortSignal; onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void },
): Promise<void> {
  const tables = tablesOf(manifest)
  const progress = { doneBytes: 0, totalBytes: tables.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) }
  const partial = `${file}.${randomBytes(4).toString('hex')}.partial`
  const failed = new AbortController()
  const either = AbortSignal.any([signal, failed.signal])
  try {
    await using output = await open(partial, 'wx', 0o600)
    await output.truncate(progress.totalBytes)
    let offset = 0
    const work = chunkRequests(tables)
    const worker = async (): Promise<void> => {
      for (const request of work) {
        either.throwIfAborted()
        const at = offset
        offset += request.lengthBytes
        const { bytes } = await parts.fetch(request, { signal: either, priority: 'background' })
        if (zeros.compare(bytes, 0, bytes.length, 0, bytes.length) !== 0) await output.write(bytes, 0, bytes.length, at)
        progress.doneBytes += request.lengthBytes
        onProgress?.(progress)
      }
    }
    await Promise.all(Array.from({ length: chunksAhead }, worker))
    await output.datasync()
    await rename(partial, file)
  } catch (cause) {
    failed.abort(cause)
    await rm(partial, { force: true })
    const { code } = cause as NodeJS.ErrnoException
    if (code === undefined || cause instanceof P2pfsError || !/^E[A-Z]+$/.test(code)) throw cause
    throw new P2pfsError('unavailable', `cannot write ${file}: ${(cause as Error).message}`, { cause })
  }
}
