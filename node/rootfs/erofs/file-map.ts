import { P2pfsError } from '../../../protocol/errors.ts'
import { maxChunkBits, nullBlock } from './format.ts'

/** A run of blocks of a file. */
export interface BlockRun {
  fileBlock: number
  /** Counted over the data segments of all layers. */
  dataBlock: number
  count: number
}

/** The places of a file's blocks: one run from its start to its end, or a map of chunks of `2 ** chunkBits` blocks. */
export type FileMap = { dataBlock: number } | { chunkBits: number; chunks: (number | undefined)[] }

/** Bound on a map, which is metadata that every mount may read: entries of 4 bytes. */
const maxChunks = 16 * 1024 * 1024

/**
 * @param runs in the order of the file
 * @param blocks of the file, holes included
 * @throws unsupported for a file with holes whose map would be too long
 */
export function mapFile(runs: readonly BlockRun[], blocks: number): FileMap {
  if (blocks === 0) return { dataBlock: 0 }
  const joined = join(runs)
  const [only] = joined
  if (only !== undefined && joined.length === 1 && only.fileBlock === 0 && only.count === blocks)
    return { dataBlock: only.dataBlock }
  const chunkBits = chunkBitsOf(joined, blocks)
  const count = Math.ceil(blocks / 2 ** chunkBits)
  if (count > maxChunks) {
    throw new P2pfsError(
      'unsupported',
      `with holes as small as these, EROFS maps ${maxChunks} blocks; the file has ${blocks}. Use the format ext4`,
    )
  }
  const chunks = Array.from<number | undefined>({ length: count })
  for (const { fileBlock, dataBlock, count: length } of joined) {
    for (let block = 0; block < length; block += 2 ** chunkBits)
      chunks[(fileBlock + block) / 2 ** chunkBits] = dataBlock + block
  }
  return { chunkBits, chunks }
}

/** The map's entries; holes have no block. @param base first block of the data on the device */
export function encodeChunks(chunks: readonly (number | undefined)[], base: number): Buffer {
  const out = Buffer.alloc(chunks.length * 4)
  for (const [i, dataBlock] of chunks.entries())
    out.writeUInt32LE(dataBlock === undefined ? nullBlock : base + dataBlock, i * 4)
  return out
}

function join(runs: readonly BlockRun[]): BlockRun[] {
  const joined: BlockRun[] = []
  for (const run of runs) {
    const last = joined.at(-1)
    if (
      last !== undefined &&
      last.fileBlock + last.count === run.fileBlock &&
      last.dataBlock + last.count === run.dataBlock
    )
      last.count += run.count
    else joined.push({ ...run })
  }
  return joined
}

/** The largest chunk size, as a power of two, at which every run begins and ends with a chunk, or with the file. */
function chunkBitsOf(runs: readonly BlockRun[], blocks: number): number {
  const edges = runs
    .flatMap(({ fileBlock, count }) => [fileBlock, fileBlock + count])
    .filter((edge) => edge !== 0 && edge !== blocks)
  const largest = Math.min(Math.ceil(Math.log2(blocks)), maxChunkBits)
  let bits = largest
  for (const edge of edges) while (edge % 2 ** bits !== 0) bits--
  return bits
}
