import type { Digest } from '../../protocol/digest.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { rootfsDigest, type RootfsFormat, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { LayerIndexes } from '../layers/layer-indexes.ts'
import { releasing, type LayerReader, type LayerSink } from '../layers/layer-reader.ts'
import type { LayerTransactions } from '../layers/layer-transactions.ts'
import { counting } from '../model/chunk-sink.ts'
import type { FindOptions, UnsignedRecord, Variant } from '../model/image.ts'
import { progressFrom } from '../model/progress.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import type { ImageSource, ResolvedImage } from '../registry/image-source.ts'
import { formatReference, type Reference } from '../registry/reference.ts'
import { importImage } from '../rootfs/image-import.ts'
import type { LayerLimits } from '../rootfs/layer-limits.ts'
import { formatOf } from './decisions.ts'
import { openLocalSource, singleLayerImage } from './local-source.ts'

export interface ImportOptions extends FindOptions {
  /**
   * The image in another format, where that is known: its layer indexes may be published. `isOnMembersWord`: nothing else
   * says that it is the image.
   */
  other?: { record: ImageRecord; isOnMembersWord: boolean }
  /** Whether all layers must have been read by this host: it takes nobody's word for an index. */
  untold?: boolean
  /** Called for each layer that was read: its index and blob map are here. */
  onLayer?: (diffId: Digest) => void
  /** Reads the layers in place of the importer's own. */
  reader?: Pick<LayerReader, 'readShared'>
}

export interface ImporterParts {
  registry: Pick<ImageSource, 'resolve'>
  reader: Pick<LayerReader, 'readShared' | 'readTar'>
  indexes: Pick<LayerIndexes, 'find' | 'own'>
  transactions: Pick<LayerTransactions, 'run'>
  published: Pick<PublishedImages, 'layerIndexes'>
  limits: LayerLimits
}

export interface Imported {
  manifest: RootfsManifest
  /** Whether a layer index of it is on the word of members: one that a peer sent, or of a rootfs that only members sign. */
  isUnverified: boolean
}

/** Makes rootfs out of images: reads the layers whose index is nowhere, and writes the metadata. */
export class Importer {
  readonly #parts: ImporterParts
  /** Chunks of metadata that imports have made. */
  readonly chunks = { bytes: 0, chunks: 0 }

  constructor(parts: ImporterParts) {
    this.#parts = parts
  }

  /**
   * Imports an image out of its registry.
   * @throws invalid, unsupported for an image that can never be imported; nothing of it is left then
   */
  async importImage(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    options: ImportOptions,
  ): Promise<Imported> {
    return await this.#parts.transactions.run(
      async (sink) => await this.#import(reference, image, format, sink, options),
    )
  }

  /**
   * Makes an image that is in no registry.
   * @param source path of a directory or a tar, or an image in an OCI layout
   */
  async importLocal(
    source: string | Reference,
    reference: Reference,
    { platform, format }: Variant,
    options: FindOptions,
  ): Promise<{ record: UnsignedRecord } & Imported> {
    const name = formatReference(reference)
    const { registry, transactions } = this.#parts
    const [image, { manifest, isUnverified }] = await transactions.run(
      async (sink): Promise<[ResolvedImage, Imported]> => {
        if (typeof source !== 'string') {
          const image = { ...(await registry.resolve(source, platform, options)), reference: name }
          return [image, await this.#import(source, image, format, sink, options)]
        }
        const layer = await this.#readLocal(source, sink, options)
        const image = singleLayerImage(name, platform, layer)
        return [image, await this.#import(reference, image, format, sink, { ...options, layer })]
      },
    )
    const { manifestDigest } = image
    return {
      record: {
        reference: name,
        platform: image.platform,
        format,
        manifestDigest,
        manifest: image.manifest,
        rootfsDigest: rootfsDigest(manifest),
      },
      manifest,
      isUnverified,
    }
  }

  async #import(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    sink: LayerSink,
    options: ImportOptions & { layer?: LayerIndex },
  ): Promise<Imported> {
    const { other, untold = false, layer: justRead } = options
    if (formatOf(image, format) !== format)
      throw new P2pfsError('invalid', `${image.reference} is a raw image; it cannot be made into ${format}`)
    const { indexes, published, limits } = this.#parts
    const reader = options.reader ?? this.#parts.reader
    let publishedIndexes: ReturnType<PublishedImages['layerIndexes']> | undefined
    let isUnverified = false
    const manifest = await importImage(
      { ...image, format },
      {
        knownLayer: async (diffId, { signal }) => {
          if (justRead?.diffId === diffId) return justRead
          if (untold) return await indexes.own(diffId)
          const found = await indexes.find(diffId, { signal, ...(sink.onIndex && { onIndex: sink.onIndex }) })
          // The peer that told this index lied: the layer is read.
          if (format === 'raw' && found !== undefined && found.index.chunks.id !== diffId) return undefined
          if (found?.isUnverified === true) isUnverified = true
          if (found !== undefined || other === undefined) return found?.index
          publishedIndexes ??= published.layerIndexes(other.record, { signal: options.signal })
          const index = (await publishedIndexes)?.get(diffId)
          if (index !== undefined && other.isOnMembersWord) isUnverified = true
          return index
        },
        readLayer: async (layer, { signal, onBytes }) => {
          const index = await reader.readShared(reference, layer, releasing(sink), {
            signal,
            onBytes,
            urgency: options.urgency,
          })
          options.onLayer?.(layer.diffId)
          return index
        },
        sink: counting(releasing(sink), this.chunks),
        limits,
      },
      { ...options, source: reference.kind === 'registry' ? 'registry' : 'local' },
    )
    return { manifest, isUnverified }
  }

  /** Reads the layer that a directory or a tar makes. */
  async #readLocal(path: string, sink: LayerSink, { signal, onProgress }: FindOptions): Promise<LayerIndex> {
    const { bytes, sizeBytes } = await openLocalSource(path, { signal })
    return await this.#parts.reader.readTar(bytes, path, releasing(sink), {
      signal,
      onBytes: (doneBytes) =>
        onProgress?.(progressFrom('local', { doneBytes, totalBytes: Math.max(sizeBytes ?? 0, doneBytes) })),
    })
  }
}
