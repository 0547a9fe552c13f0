import type { ByteString } from '../../../protocol/layer-entry.ts'
import { entryTypes } from '../tree/inode-types.ts'
import { blockBytes, direntBytes } from './format.ts'

export interface DirectoryEntry {
  name: ByteString
  type: keyof typeof entryTypes
}

/**
 * Decides which entries share a block. Names are in bytewise order over all blocks, because the kernel bisects them.
 * @param names sorted, `.` and `..` among them
 * @returns for each block the index of its first entry and how many bytes of it are used
 */
export function packDirectory(names: readonly ByteString[]): { first: number; usedBytes: number }[] {
  const blocks: { first: number; usedBytes: number }[] = []
  let usedBytes = blockBytes
  for (const [i, name] of names.entries()) {
    const bytes = direntBytes + name.length
    if (usedBytes + bytes > blockBytes) {
      blocks.push({ first: i, usedBytes: 0 })
      usedBytes = 0
    }
    usedBytes += bytes
    blocks.at(-1)!.usedBytes = usedBytes
  }
  return blocks
}

/**
 * Encodes a block: entries of fixed size, then their names.
 * @param sizeBytes of the block; of the last one, the used part
 */
export function encodeDirectoryBlock(
  entries: readonly (DirectoryEntry & { node: number })[],
  sizeBytes: number,
): Buffer {
  const out = Buffer.alloc(sizeBytes)
  let nameOffset = entries.length * direntBytes
  for (const [i, { name, type, node }] of entries.entries()) {
    const offset = i * direntBytes
    out.writeBigUInt64LE(BigInt(node), offset)
    out.writeUInt16LE(nameOffset, offset + 8)
    out[offset + 10] = entryTypes[type]
    nameOffset += out.write(name, nameOffset, 'latin1')
  }
  return out
}
