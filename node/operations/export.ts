import { randomBytes } from 'node:crypto'
import { open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ExportRequest, ExportResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import type { ImageResolver } from '../images/resolver.ts'
import type { ByteProgress } from '../model/progress.ts'
import { chunkRequests, sizeOf, tablesOf } from '../model/rootfs-chunks.ts'
import type { ImageRequests } from './image-request.ts'

/** Chunks that are being fetched or written at once. */
const chunksAhead = 16
const zeros = Buffer.alloc(1024 * 1024)

/** Errors that say little of what to do. */
const reasons: Partial<Record<string, (file: string) => string>> = {
  ENOENT: (file) => `there is no directory ${dirname(file)}; make it first`,
  EISDIR: (file) => `it is a directory; name a file, as ${join(file, 'rootfs.img')}`,
}

export interface ExportParts {
  requests: ImageRequests
  resolver: Pick<ImageResolver, 'resolveForMount'>
  fetcher: Pick<Fetcher, 'fetch'>
}

/** `p2pfs export`: writes the whole image to a file, sparse where it is zero, for programs that cannot use the mount. */
export class ExportOperation {
  readonly #parts: ExportParts

  constructor(parts: ExportParts) {
    this.#parts = parts
  }

  /**
   * The file appears when it is complete.
   * @throws unavailable where the file cannot be written; what the fetch throws
   */
  async run(request: ExportRequest, { signal, onProgress }: OperationOptions): Promise<ExportResult> {
    const { requests, resolver } = this.#parts
    const { reference, variant } = requests.parse(request)
    const { record, manifest } = await resolver.resolveForMount(reference, variant, {
      pull: 'newer',
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    await this.#write(manifest, request.file, {
      signal,
      onProgress: (progress) => onProgress({ step: 'export', ...progress }),
    })
    return { file: request.file, digest: record.rootfsDigest, sizeBytes: sizeOf(manifest) }
  }

  async #write(
    manifest: RootfsManifest,
    file: string,
    { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: ByteProgress) => void },
  ): Promise<void> {
    const from = { local: 0, peer: 0, neighbour: 0, registry: 0 }
    const progress = { doneBytes: 0, totalBytes: sizeOf(manifest), from }
    const partial = `${file}.${randomBytes(4).toString('hex')}.partial`
    const failed = new AbortController()
    const ended = AbortSignal.any([signal, failed.signal])
    try {
      await using output = await open(partial, 'wx', 0o600)
      await output.truncate(progress.totalBytes)
      let nextOffset = 0
      const work = chunkRequests(tablesOf(manifest))
      const worker = async (): Promise<void> => {
        for (const request of work) {
          ended.throwIfAborted()
          const offset = nextOffset
          nextOffset += request.lengthBytes
          const { bytes, source } = await this.#parts.fetcher.fetch(request, { signal: ended, priority: 'background' })
          from[source] += request.lengthBytes
          if (zeros.compare(bytes, 0, bytes.length, 0, bytes.length) !== 0) {
            await output.write(bytes, 0, Math.min(bytes.length, progress.totalBytes - offset), offset)
          }
          progress.doneBytes = Math.min(progress.doneBytes + request.lengthBytes, progress.totalBytes)
          onProgress(progress)
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
      const why = reasons[code]?.(file) ?? (cause as Error).message
      throw new P2pfsError('unavailable', `cannot write ${file}: ${why}`, { cause })
    }
  }
}
