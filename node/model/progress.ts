/** How much of a task is done. */
export interface ByteProgress {
  doneBytes: number
  totalBytes: number
}

/** A quantity of chunks. */
export interface Amount {
  bytes: number
  chunks: number
}
