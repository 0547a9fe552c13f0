import { crc32c } from './crc32c.ts'
import { blockBytes, compatible, incompatible, magic, superblockBytes, superblockOffset } from './format.ts'

export interface SuperblockFields {
  totalBlocks: number
  inodes: number
  rootNode: number
  /** Whether any file has a chunk map. */
  chunked: boolean
  /** 16 bytes. */
  uuid: Uint8Array
}

/**
 * Writes the superblock into the first block of the device. Its checksum covers the rest of the block, so the block
 * must be complete otherwise.
 */
export function writeSuperblock(
  block: Buffer,
  { totalBlocks, inodes, rootNode, chunked, uuid }: SuperblockFields,
): void {
  const out = block.subarray(superblockOffset, superblockOffset + superblockBytes)
  out.fill(0)
  out.writeUInt32LE(magic, 0)
  out.writeUInt32LE(compatible.checksum | compatible.mtime, 8)
  out[12] = Math.log2(blockBytes)
  out.writeUInt16LE(rootNode, 14)
  out.writeBigUInt64LE(BigInt(inodes), 16)
  out.writeUInt32LE(totalBlocks, 36)
  out.set(uuid, 48)
  out.writeUInt32LE(chunked ? incompatible.chunkedFile : 0, 80)
  out.writeUInt32LE(crc32c(block.subarray(superblockOffset), 0xffffffff), 4)
}
