import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import type { BlobMap } from '../../protocol/blob-map.ts'
import { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { PackedPieces } from '../../protocol/packed-pieces.ts'
import { pushedRawLayerType, rawChunkBytes, rawFrameBytes } from '../../protocol/raw-image.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkRequest, FetchedChunk, FetchPriority } from '../model/chunk-request.ts'
import type { UnsignedRecord } from '../model/image.ts'
import type { ByteProgress } from '../model/progress.ts'
import { requestOf } from '../model/rootfs-chunks.ts'
import { encodeImageManifest, mediaTypes, type Descriptor } from '../registry/image-manifest.ts'
import type { ImageSource } from '../registry/image-source.ts'
import { formatReference, type RegistryReference } from '../registry/reference.ts'
import { isAllZero } from '../rootfs/raw/raw-indexer.ts'
import type { BlobMaps } from '../store/blob-maps.ts'

const compress = promisify(zstdCompress)

/** Frames that are being fetched and compressed at once: enough for the threads of the pool. */
const framesAtOnce = 8

export interface RawPusherParts {
  registry: Pick<ImageSource, 'pushBlob' | 'pushManifest'>
  fetcher: {
    fetch: (request: ChunkRequest, options: { signal: AbortSignal; priority: FetchPriority }) => Promise<FetchedChunk>
  }
  blobMaps: Pick<BlobMaps, 'put'>
}

const zeros = Buffer.alloc(rawChunkBytes)
const zeroDigest = digestOf(zeros)

/** A layer of a raw image as a registry has it. */
export interface RawBlob {
  bytes: Buffer
  map: BlobMap
}

/**
 * Puts raw images into registries. A layer becomes a blob of zstd frames, each of which can be read alone; one is in memory
 * at a time.
 */
export class RawPusher {
  readonly #parts: RawPusherParts

  constructor(parts: RawPusherParts) {
    this.#parts = parts
  }

  /**
   * Stores the image under a tag; its blob maps are known here then. Layers that the registry has are not sent.
   * @throws invalid for a manifest whose layers are not what their diff ids say; what the fetch throws; denied, and the
   *   other codes of the registry client
   */
  async push(
    { manifest, platform, rootfsDigest }: { manifest: RootfsManifest; platform: string; rootfsDigest: Digest },
    target: RegistryReference & { tag: string },
    { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: ByteProgress) => void },
  ): Promise<{ record: UnsignedRecord; compressedBytes: number }> {
    const { registry, blobMaps } = this.#parts
    const pushed = new Map<Digest, Descriptor>()
    const progress = { doneBytes: 0, totalBytes: manifest.sizeBytes! }
    for (const { diffId, chunks } of manifest.layers) {
      if (diffId !== chunks.id)
        throw new P2pfsError('invalid', `layer ${diffId} of the raw image has other chunks than it says`)
      const tarBytes = Math.min(chunks.sizeBytes, progress.totalBytes - progress.doneBytes)
      if (!pushed.has(diffId)) {
        const { bytes, map } = await this.compress(chunks, tarBytes, signal)
        const { digest, sizeBytes } = await registry.pushBlob(target, bytes, { signal })
        await blobMaps.put(map)
        pushed.set(diffId, { digest, sizeBytes, mediaType: pushedRawLayerType })
      }
      progress.doneBytes += tarBytes
      onProgress(progress)
    }
    await registry.pushBlob(target, Buffer.from(manifest.config), { signal })
    const json = encodeImageManifest(
      manifest.config,
      manifest.layers.map(({ diffId }) => pushed.get(diffId)!),
    )
    const { digest: manifestDigest } = await registry.pushManifest(target, target.tag, json, mediaTypes.ociManifest, {
      signal,
    })
    return {
      record: {
        reference: formatReference(target),
        platform,
        format: 'raw',
        manifestDigest,
        manifest: json,
        rootfsDigest,
      },
      compressedBytes: [...pushed.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    }
  }

  /**
   * Makes the blob of a layer, and the map that reading it whole would make.
   * @param layerBytes how much of its last block is in the image, with all before it
   */
  async compress(chunks: ChunkTable, layerBytes: number, signal: AbortSignal): Promise<RawBlob> {
    const frames: Buffer[] = []
    const chunksPerFrame = rawFrameBytes / rawChunkBytes
    const isZero = new Uint8Array(chunks.count)
    const make = async (first: number): Promise<Buffer> => {
      const parts: Uint8Array[] = []
      for (let index = first; index < Math.min(first + chunksPerFrame, chunks.count); index++) {
        const request = requestOf(chunks, index)
        const { bytes } =
          request.digest === zeroDigest
            ? { bytes: zeros }
            : await this.#parts.fetcher.fetch(request, { signal, priority: 'background' })
        isZero[index] = isAllZero(bytes) ? 1 : 0
        const layerEnd = layerBytes - chunks.offsets[index]!
        parts.push(layerEnd < bytes.length ? bytes.subarray(0, layerEnd) : bytes)
      }
      const isZeroFrame = parts.length === chunksPerFrame && parts.every((part) => part === zeros)
      if (!isZeroFrame) return await compress(Buffer.concat(parts))
      zeroFrame ??= await compress(Buffer.alloc(rawFrameBytes))
      return zeroFrame
    }
    let zeroFrame: Buffer | undefined
    for (let first = 0; first < chunks.count; first += framesAtOnce * chunksPerFrame) {
      const starts = Array.from({ length: framesAtOnce }, (_, i) => first + i * chunksPerFrame)
      frames.push(...(await Promise.all(starts.filter((start) => start < chunks.count).map(make))))
    }
    const bytes = Buffer.concat(frames)
    return { bytes, map: mapOf({ bytes, frames, chunks, isZero, layerBytes }) }
  }
}

function mapOf({
  bytes,
  frames,
  chunks,
  isZero,
  layerBytes,
}: {
  bytes: Buffer
  frames: readonly Buffer[]
  chunks: ChunkTable
  isZero: Uint8Array
  layerBytes: number
}): BlobMap {
  const numbers: number[] = []
  let start: number | undefined
  for (let index = 0; index <= chunks.count; index++) {
    if (index < chunks.count && isZero[index] === 0) start ??= chunks.offsets[index]
    else if (start !== undefined) {
      numbers.push(start, Math.min(chunks.offsets[index]!, layerBytes) - start, start)
      start = undefined
    }
  }
  let offset = 0
  return {
    digest: digestOf(bytes),
    diffId: chunks.id,
    sizeBytes: bytes.length,
    tarBytes: layerBytes,
    compression: 'zstd',
    checkpoints: frames.map((frame, i) => {
      const bitOffset = offset * 8
      offset += frame.length
      return { bitOffset, tarOffset: i * rawFrameBytes, window: { offset: 0, lengthBytes: 0 } }
    }),
    stopPoints: new Uint32Array(0),
    windows: new ChunkTable([], new Uint8Array(0)),
    pieces: new PackedPieces(Float64Array.from(numbers)),
  }
}
