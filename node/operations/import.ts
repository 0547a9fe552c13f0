import type { ImportRequest, SeedResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import { asUsage } from '../control/usage.ts'
import type { KeptChunks } from '../disk/kept-chunks.ts'
import type { Importer } from '../images/importer.ts'
import type { RawImporter } from '../images/raw-importer.ts'
import type { ImageResolver } from '../images/resolver.ts'
import type { FindOptions } from '../model/image.ts'
import { parseReference } from '../registry/reference.ts'
import type { Inventory } from '../store/inventory.ts'
import type { ImageRequests } from './image-request.ts'
import type { RootfsSeeder } from './rootfs-seeder.ts'

export interface ImportParts {
  requests: ImageRequests
  importer: Pick<Importer, 'importLocal'>
  rawImporter: Pick<RawImporter, 'import'>
  resolver: Pick<ImageResolver, 'add'>
  seeder: RootfsSeeder
  inventory: Pick<Inventory, 'flush'>
  kept: Pick<KeptChunks, 'whileImporting'>
}

/** `p2pfs import`: makes the image `local:NAME` of a directory, a tar, an OCI layout or a disk image. */
export class ImportOperation {
  readonly #parts: ImportParts

  constructor(parts: ImportParts) {
    this.#parts = parts
  }

  async run(request: ImportRequest, options: OperationOptions): Promise<SeedResult> {
    return await this.#parts.kept.whileImporting(async () => await this.#run(request, options))
  }

  async #run(request: ImportRequest, { signal, onProgress }: OperationOptions): Promise<SeedResult> {
    const { resolver, seeder, inventory } = this.#parts
    const { record, ...imported } = await this.#import(request, {
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    // Its bytes may be nowhere else. The name stands for what was imported before until these are on the disk.
    await inventory.flush({ signal })
    const image = await resolver.add(record, imported)
    return await seeder.seed(
      { ...image, origin: 'local', resolution: 'last-known' },
      { signal, onProgress: (progress) => onProgress({ step: 'fetch', ...progress }) },
    )
  }

  async #import(
    request: ImportRequest,
    options: FindOptions,
  ): Promise<Awaited<ReturnType<ImportParts['importer']['importLocal']>>> {
    const { requests, importer, rawImporter } = this.#parts
    const { source, raw = false } = request
    const reference = asUsage(() => parseReference(`local:${request.name.replace(/^local:/, '')}`))
    if (raw)
      return await rawImporter.import(source, reference, requests.variant({ ...request, format: 'raw' }), options)
    const from = source.startsWith('oci:') ? asUsage(() => parseReference(source)) : source
    return await importer.importLocal(from, reference, requests.variant(request), options)
  }
}
