import type { Source } from './chunk-request.ts'

/** How much of a task is done. */
export interface ByteProgress {
  doneBytes: number
  totalBytes: number
  /** The sources of the bytes that are done, as far as they are known; `local` was on this host. */
  from?: Partial<Record<Source, number>>
}

/** Progress of what is read from one source alone. */
export const progressFrom = (source: Source, { doneBytes, totalBytes }: ByteProgress): ByteProgress => ({
  doneBytes,
  totalBytes,
  from: { [source]: doneBytes },
})

/** A quantity of chunks. */
export interface Amount {
  bytes: number
  chunks: number
}
