import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestBytes, type Digest } from '../../protocol/digest.ts'
import type { RemoteSource } from '../model/chunk-request.ts'
import { digestView } from './digest-key.ts'
import { DigestMap } from './digest-map.ts'

const sources: readonly RemoteSource[] = ['peer', 'neighbour', 'registry']

/** The sources of chunks that came while this process ran. It has as many entries as the store got chunks in that time. */
export class ChunkProvenance {
  readonly #sources = new DigestMap()

  note(digest: Digest, source: RemoteSource): void {
    this.#sources.set(digest, sources.indexOf(source))
  }

  /** The chunks of the table that came while this process ran. */
  *of({ count, digests }: ChunkTable): Generator<{ index: number; source: RemoteSource }> {
    if (this.#sources.size === 0) return
    const view = digestView(digests)
    for (let index = 0; index < count; index++) {
      const source = this.#sources.getAt(view, index * digestBytes)
      if (source !== undefined) yield { index, source: sources[source]! }
    }
  }
}
