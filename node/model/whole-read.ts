/**
 * Why a layer is read whole although its image is read lazily:
 * - `no-ranges`: the registry serves no ranges of blobs
 * - `no-map`: region and registry have answered that they have no blob map of the layer
 * - `no-windows`: nobody has the decompression windows of the layer
 * - `wrong-bytes`: a range of the layer was not what it should be, twice
 * - `large-chunk`: a chunk cannot be decoded without most of the layer
 * - `no-index`: metadata is made again, and nobody has the index of the layer
 */
export const wholeReadReasons = ['no-ranges', 'no-map', 'no-windows', 'wrong-bytes', 'large-chunk', 'no-index'] as const
export type WholeReadReason = (typeof wholeReadReasons)[number]

export interface WholeRead {
  reason: WholeReadReason
  /** ISO 8601. */
  startedAt: string
}
