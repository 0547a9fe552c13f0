import { promisify } from 'node:util'
import { zstdDecompress } from 'node:zlib'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { encodeLayerIndexPieces, LayerIndexParser, type LayerIndex } from '../../protocol/layer-index.ts'
import { compressPieces, expandPieces } from '../base/compress.ts'
import { release } from '../base/release.ts'
import { keys, prefixes, under } from './keys.ts'
import type { CatalogRecords } from './catalog-records.ts'

const decompress = promisify(zstdDecompress)

/** The largest record that the object protocol carries; with LevelDB's write buffer of 4 MiB no file of the catalog grows beyond 64 MiB (bytes). */
const maxLayerRecordBytes = 56 * 1024 * 1024

export interface LayerLookup {
  /** Whether an index of a peer, which nobody has signed, is given out where this host has not read the layer. Default: true. */
  includeUnverified?: boolean
}

/** The layer indexes of the catalog: those that this host vouches for, and those that peers have told, which nobody has signed. */
export class LayerRecords {
  readonly #records: CatalogRecords

  constructor({ records }: { records: CatalogRecords }) {
    this.#records = records
  }

  /**
   * @param options `unverified`: a peer has sent it, and nobody has signed it
   * @throws invalid for an index that is too large to be stored, or to be sent to peers
   */
  async put(index: LayerIndex, { unverified }: { unverified: boolean }): Promise<void> {
    const bytes = await compressPieces(encodeLayerIndexPieces(index))
    if (bytes.length > maxLayerRecordBytes) {
      throw new P2pfsError(
        'invalid',
        `layer ${index.diffId}: its index takes ${bytes.length} bytes compressed; ${maxLayerRecordBytes} is the most`,
        { layer: index.diffId },
      )
    }
    const key = unverified ? keys.unverifiedLayer(index.diffId) : keys.layer(index.diffId)
    await this.#records.put(key, bytes, { sync: true })
    release(bytes)
  }

  async has(diffId: Digest, { includeUnverified = true }: LayerLookup): Promise<boolean> {
    return (
      (await this.#records.has(keys.layer(diffId))) ||
      (includeUnverified && (await this.#records.has(keys.unverifiedLayer(diffId))))
    )
  }

  /** The index in its encoded form. */
  async bytes(diffId: Digest, options: LayerLookup): Promise<Uint8Array | undefined> {
    const compressed = await this.#compressed(diffId, options)
    return compressed === undefined ? undefined : await decompress(compressed)
  }

  async get(diffId: Digest, options: LayerLookup): Promise<LayerIndex | undefined> {
    const compressed = await this.#compressed(diffId, options)
    if (compressed === undefined) return undefined
    const parser = new LayerIndexParser()
    for await (const piece of expandPieces(compressed)) parser.push(piece)
    return parser.finish()
  }

  async #compressed(diffId: Digest, { includeUnverified = true }: LayerLookup): Promise<Uint8Array | undefined> {
    return (
      (await this.#records.get(keys.layer(diffId))) ??
      (includeUnverified ? await this.#records.get(keys.unverifiedLayer(diffId)) : undefined)
    )
  }

  /** Diff ids of the layers whose indexes this host vouches for. */
  async diffIds(): Promise<Digest[]> {
    const names = await this.#records.keys(under(prefixes.layer))
    return names.map((name) => parseDigest(name.slice(prefixes.layer.length)))
  }

  async delete(diffId: Digest): Promise<void> {
    await this.#records.delete(keys.layer(diffId))
    await this.deleteUnverified(diffId)
  }

  async deleteUnverified(diffId: Digest): Promise<void> {
    await this.#records.delete(keys.unverifiedLayer(diffId))
  }
}
