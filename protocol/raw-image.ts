import { blockBytes, ChunkTable } from './chunk-table.ts'
import { digestBytes, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'
import { formatVersion } from './layer-index.ts'

/*
 * A raw image is a disk image, or any other file, as somebody else has made it. SPEC.md, "Raw images".
 */

/** Every chunk of a raw image has this length (bytes), except the last. docs/decisions/raw-images.md compares others. */
export const rawChunkBytes = 128 * 1024

/** A zstd frame of a pushed layer (bytes of the image): what a chunk costs that is read alone from a registry. */
export const rawFrameBytes = 256 * 1024

/** The media type of the layers of a raw image that is in no registry; see {@link pushedRawLayerType}. */
export const rawLayerType = `application/vnd.p2pfs.raw.v${formatVersion}`
export const pushedRawLayerType = `${rawLayerType}+zstd`

/** A layer has 64 MiB of the image, and more in an image that would have more than 256 of them (bytes). */
const [minLayerBytes, maxLayerBytes, preferredLayers] = [64 * 1024 * 1024, 256 * 1024 * 1024, 256]

/**
 * The largest raw image (bytes): as many layers as an image may have; its rootfs manifest has 36 MiB, and a region
 * carries 64.
 */
export const maxRawBytes = 128 * 1024 ** 3

/** @throws invalid where layers of raw images stand beside others */
export function isRawImage(layers: readonly { mediaType: string }[]): boolean {
  const raw = layers.filter(({ mediaType }) => mediaType === rawLayerType || mediaType === pushedRawLayerType).length
  if (raw > 0 && raw < layers.length)
    throw new P2pfsError('invalid', 'the image has layers of a raw image, and others: it is neither')
  return raw > 0
}

/** How much of a raw image each of its layers has; the last may have less (bytes). */
export function rawLayerBytes(sizeBytes: number): number {
  let layerBytes = minLayerBytes
  while (layerBytes < maxLayerBytes && sizeBytes / layerBytes > preferredLayers) layerBytes *= 2
  return layerBytes
}

/** The length of the chunks that have these bytes of a raw image: whole blocks, the last one filled up with zeros. */
export function rawChunkLength(bytes: number): number {
  return Math.ceil(Math.min(bytes, rawChunkBytes) / blockBytes) * blockBytes
}

/**
 * The layers of a raw image. The diff id of such a layer is the id of its chunk table.
 * @param digests of all its chunks, 32 raw bytes each
 */
export function rawLayers(digests: Uint8Array, sizeBytes: number): { diffId: Digest; chunks: ChunkTable }[] {
  const layerBytes = rawLayerBytes(sizeBytes)
  const chunksPerLayer = layerBytes / rawChunkBytes
  const layers: { diffId: Digest; chunks: ChunkTable }[] = []
  for (let start = 0; start < sizeBytes; start += layerBytes) {
    const lengths: number[] = []
    for (let offset = start; offset < Math.min(start + layerBytes, sizeBytes); offset += rawChunkBytes)
      lengths.push(rawChunkLength(sizeBytes - offset))
    const first = layers.length * chunksPerLayer
    const chunks = new ChunkTable(lengths, digests.slice(first * digestBytes, (first + lengths.length) * digestBytes))
    layers.push({ diffId: chunks.id, chunks })
  }
  return layers
}
