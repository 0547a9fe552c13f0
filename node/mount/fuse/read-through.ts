import { chunkAt, type BlockImage } from './block-image.ts'
import type { ReadHandler } from './driver.ts'
import type { ReadCounters } from './read-counters.ts'

/** The bytes `offset` to `offset + size` of an image. All chunks that they lie in are fetched side by side. */
export async function readThrough(
  image: BlockImage,
  offset: number,
  size: number,
  handler: Pick<ReadHandler, 'miss'>,
  counters: ReadCounters,
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  const offsets = new Float64Array(image.offsets)
  const state = new Uint8Array(image.state)
  const readOrder = new Int32Array(image.readOrder)
  const chunks: number[] = []
  for (let chunk = chunkAt(offsets, offset); offsets[chunk]! < offset + size && chunk < state.length; chunk++)
    chunks.push(chunk)
  return await Promise.all(
    chunks.map(async (chunk) => {
      const bytes = await handler.miss(image.name, chunk, { signal })
      const start = offsets[chunk]!
      const from = Math.max(offset - start, 0)
      const to = Math.min(offset + size, offsets[chunk + 1]!) - start
      counters.count({ state, readOrder }, chunk, to - from)
      return bytes.subarray(from, to)
    }),
  )
}
