import type { ImportRequest, SeedResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { Importer } from '../images/importer.ts'
import type { ImageResolver } from '../images/resolver.ts'
import { parseReference } from '../registry/reference.ts'
import type { Inventory } from '../store/inventory.ts'
import type { ImageRequests } from './image-request.ts'
import type { RootfsSeeder } from './rootfs-seeder.ts'

export interface ImportParts {
  requests: ImageRequests
  importer: Pick<Importer, 'importLocal'>
  resolver: Pick<ImageResolver, 'add'>
  seeder: RootfsSeeder
  inventory: Pick<Inventory, 'flush'>
}

/** `p2pfs import`: makes the image `local:NAME` of a directory, a tar or an OCI layout. */
export class ImportOperation {
  readonly #parts: ImportParts

  constructor(parts: ImportParts) {
    this.#parts = parts
  }

  async run(request: ImportRequest, { signal, onProgress }: OperationOptions): Promise<SeedResult> {
    const { requests, importer, resolver, seeder, inventory } = this.#parts
    const reference = parseReference(`local:${request.name.replace(/^local:/, '')}`)
    const source = request.source.startsWith('oci:') ? parseReference(request.source) : request.source
    const { record, ...imported } = await importer.importLocal(source, reference, requests.variant(request), {
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
}
