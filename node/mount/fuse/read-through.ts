import { P2pfsError } from '../../../protocol/errors.ts'
import { chunkAt } from './block-image.ts'
import type { ReadHandler } from './driver.ts'
import type { ServedImage } from './image-nodes.ts'
import type { ReadCounters } from './read-counters.ts'

/**
 * The bytes `offset` to `offset + size` of an image: exactly as many. All chunks that they lie in are fetched side by
 * side.
 * @throws invalid if a chunk does not have its length; what the handler throws
 */
export async function readThrough(
  { image, offsets, state, readOrder }: ServedImage,
  { offset, size }: { offset: number; size: number },
  handler: Pick<ReadHandler, 'miss'>,
  counters: ReadCounters,
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  const chunks: number[] = []
  for (let chunk = chunkAt(offsets, offset); offsets[chunk]! < offset + size && chunk < state.length; chunk++)
    chunks.push(chunk)
  return await Promise.all(
    chunks.map(async (chunk) => {
      const bytes = await handler.miss(image.name, chunk, { signal })
      const start = offsets[chunk]!
      const end = offsets[chunk + 1]!
      if (bytes.length !== end - start)
        throw new P2pfsError('invalid', `chunk ${chunk} has ${bytes.length} bytes instead of ${end - start}`)
      const from = Math.max(offset - start, 0)
      const to = Math.min(offset + size, end) - start
      counters.count({ state, readOrder }, chunk, to - from)
      return bytes.subarray(from, to)
    }),
  )
}
