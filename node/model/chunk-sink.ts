import type { Digest } from '../../protocol/digest.ts'
import type { ChunkFileWriting, WrittenChunk } from '../base/chunk-file-writer.ts'
import type { Amount } from './progress.ts'

/** Takes each chunk as it is made; resolves when it is kept. The bytes are the sink's from then on. */
export interface ChunkSink {
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
  /** For threads that make chunks: begins the writes of one. Absent where all bytes have to pass `put`. */
  openFiles?: () => ChunkFiles
}

/** A chunk by its name. */
export interface NamedChunk {
  digest: Digest
  lengthBytes: number
}

/** The fate of a chunk that a thread has made: it writes the file, sends the bytes to `put`, or drops them. */
export type ChunkFate = 'write' | 'send' | 'drop'

/**
 * Lets one thread, which may be killed at any instruction, write the files of chunks. It is disposed of after the
 * thread.
 */
export interface ChunkFiles extends AsyncDisposable {
  /** For the thread's `ChunkFileWriter`; undefined where it is never told to write. */
  writing: ChunkFileWriting | undefined
  /** Resolves when there is room for the chunk. @throws what `put` throws */
  decide: (chunk: NamedChunk) => Promise<ChunkFate>
  /** Takes over files that the thread has written; at once. */
  adopt: (chunks: readonly WrittenChunk[]) => void
  /** Turns an error of the thread's writer into the one that `put` would throw. */
  failed: (cause: unknown) => Promise<Error>
}

/** A sink whose files are those of another one, but for some of their methods. */
export function withFiles(
  { openFiles }: Pick<ChunkSink, 'openFiles'>,
  change: (files: ChunkFiles) => Partial<Omit<ChunkFiles, 'writing'>>,
): Pick<ChunkSink, 'openFiles'> {
  if (openFiles === undefined) return {}
  return {
    openFiles: () => {
      const files = openFiles()
      return {
        writing: files.writing,
        decide: async (chunk) => await files.decide(chunk),
        adopt: (chunks) => files.adopt(chunks),
        failed: async (cause) => await files.failed(cause),
        [Symbol.asyncDispose]: async () => await files[Symbol.asyncDispose](),
        ...change(files),
      }
    },
  }
}

/** Passes chunks on, and adds them to `amount`. */
export function counting(sink: ChunkSink, amount: Amount): ChunkSink {
  const count = (lengthBytes: number): void => {
    amount.bytes += lengthBytes
    amount.chunks++
  }
  return {
    put: async (digest, bytes) => {
      count(bytes.length)
      await sink.put(digest, bytes)
    },
    ...withFiles(sink, (files) => ({
      decide: async (chunk) => {
        const fate = await files.decide(chunk)
        // A chunk that is sent is counted when it is put.
        if (fate !== 'send') count(chunk.lengthBytes)
        return fate
      },
    })),
  }
}

/** Keeps nothing. */
export const discarding: ChunkSink = {
  put: async () => undefined,
  openFiles: () => ({
    writing: undefined,
    decide: async () => 'drop',
    adopt: () => undefined,
    failed: async (cause) => cause as Error,
    [Symbol.asyncDispose]: async () => undefined,
  }),
}
