/** A filesystem laid out: its metadata region at the front, the layers' data regions behind it, back to back. */
export interface FilesystemPlan {
  /** Length of the metadata region. */
  metadataBytes: number
  sizeBytes: number
  /** The metadata region, in order, in pieces of whole blocks. */
  pieces: () => Generator<Uint8Array>
}
