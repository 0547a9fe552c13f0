import { blockBytes, maxChunkBytes } from '../chunk-table.ts'
import { P2pfsError } from '../errors.ts'

/*
 * Every small file of a pack fills its last block with zeros. The trimmed form of a chunk leaves the zeros at the ends of its blocks
 * out: for each block how many units of 8 bytes are kept (16 bit little-endian, 0 to 512), then what is kept of each block.
 */

const countBytes = 2
const unitBytes = 8
const wordsPerBlock = blockBytes / 4
/** A chunk that would not be a tenth shorter goes as it is. */
const worthShare = 0.9

/** Bytes that have to be free in front of a chunk that is trimmed: those of the counts of the longest. */
export const trimRoomBytes = (maxChunkBytes / blockBytes) * countBytes

/**
 * Trims a chunk within its memory.
 * @param memory has an ArrayBuffer of its own; the chunk's `lengthBytes` stand at `start`, a multiple of 8
 * @param target where the trimmed form is put (bytes): {@link trimRoomBytes} before `start` at the latest
 * @returns the length of the trimmed form (bytes); undefined where it is not worth it: the memory is as it was
 */
export function trimZeroTails(
  memory: Buffer,
  { start, lengthBytes, target }: { start: number; lengthBytes: number; target: number },
): number | undefined {
  if (lengthBytes % blockBytes !== 0) return undefined
  const words = new Int32Array(memory.buffer, memory.byteOffset + start, lengthBytes / 4)
  const blocks = lengthBytes / blockBytes
  const kept = new Uint16Array(blocks)
  let trimmedBytes = blocks * countBytes
  for (let block = 0; block < blocks; block++) {
    const first = block * wordsPerBlock
    let end = first + wordsPerBlock
    while (end > first && (words[end - 1]! | words[end - 2]!) === 0) end -= 2
    kept[block] = (end - first) / 2
    trimmedBytes += kept[block]! * unitBytes
  }
  if (trimmedBytes > lengthBytes * worthShare) return undefined
  let to = target + blocks * countBytes
  for (let block = 0; block < blocks; block++) {
    memory.writeUInt16LE(kept[block]!, target + block * countBytes)
    const from = start + block * blockBytes
    memory.copyWithin(to, from, from + kept[block]! * unitBytes)
    to += kept[block]! * unitBytes
  }
  return trimmedBytes
}

/**
 * Makes the chunk of its trimmed form.
 * @param chunk all of its bytes are written; its length is the chunk's
 * @throws invalid for a form that no chunk of this length has
 */
export function expandZeroTails(trimmed: Uint8Array, chunk: Uint8Array): void {
  const blocks = chunk.length / blockBytes
  const counts = new DataView(trimmed.buffer, trimmed.byteOffset, trimmed.byteLength)
  let from = blocks * countBytes
  if (!Number.isInteger(blocks) || trimmed.length < from) throw malformed()
  for (let block = 0; block < blocks; block++) {
    const keptBytes = counts.getUint16(block * countBytes, true) * unitBytes
    if (keptBytes > blockBytes || from + keptBytes > trimmed.length) throw malformed()
    const start = block * blockBytes
    chunk.set(trimmed.subarray(from, from + keptBytes), start)
    chunk.fill(0, start + keptBytes, start + blockBytes)
    from += keptBytes
  }
  if (from !== trimmed.length) throw malformed()
}

function malformed(): P2pfsError {
  return new P2pfsError('invalid', 'trimmed chunk: its counts do not fit its length')
}
