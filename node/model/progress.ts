/** How far a task is, in bytes. */
export interface ByteProgress {
  doneBytes: number
  totalBytes: number
}

/** How much of something there is. */
export interface Amount {
  bytes: number
  chunks: number
}
