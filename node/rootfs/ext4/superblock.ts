import {
  blockBytes,
  compatible,
  descriptorBytes,
  extraInodeBytes,
  firstInode,
  incompatible,
  inodeBytes,
  readOnlyCompatible,
} from './format.ts'

export interface Geometry {
  totalBlocks: number
  blocksPerGroup: number
  inodesPerGroup: number
  groups: number
}

/** Counts of one block group, and the places of its tables. */
export interface GroupDescriptor {
  blockBitmap: number
  inodeBitmap: number
  inodeTable: number
  freeBlocks: number
  freeInodes: number
  directories: number
}

/**
 * The 1024 bytes at offset 1024. The filesystem has no journal, no backups and no times, and is read-only by a feature
 * flag.
 * @param uuid 16 bytes; they seed the directory hash too
 */
export function encodeSuperblock(
  { totalBlocks, blocksPerGroup, inodesPerGroup, groups }: Geometry,
  free: { blocks: number; inodes: number },
  uuid: Uint8Array,
): Buffer {
  const out = Buffer.alloc(1024)
  const u16 = (offset: number, value: number): void => void out.writeUInt16LE(value, offset)
  const u32 = (offset: number, value: number): void => void out.writeUInt32LE(value >>> 0, offset)
  u32(0, groups * inodesPerGroup)
  u32(4, totalBlocks)
  u32(12, free.blocks)
  u32(16, free.inodes)
  u32(24, Math.log2(blockBytes) - 10)
  u32(28, Math.log2(blockBytes) - 10)
  u32(32, blocksPerGroup)
  u32(36, blocksPerGroup)
  u32(40, inodesPerGroup)
  // The number of mounts never asks for a check.
  u16(54, 0xffff)
  u16(56, 0xef53)
  // State: clean. On errors: continue, because nothing is ever written.
  u16(58, 1)
  u16(60, 1)
  u32(76, 1)
  u32(84, firstInode)
  u16(88, inodeBytes)
  u32(92, compatible.extAttr | compatible.dirIndex | compatible.sparseSuper2)
  u32(96, incompatible.fileType | incompatible.extents | incompatible.flexBg)
  u32(
    100,
    readOnlyCompatible.largeFile |
      readOnlyCompatible.dirNlink |
      readOnlyCompatible.extraIsize |
      readOnlyCompatible.readOnly,
  )
  out.set(uuid, 104)
  out.set(uuid, 236)
  // Directory hash: half MD4; s_flags below says over unsigned characters.
  out[252] = 1
  u16(254, descriptorBytes)
  u16(348, extraInodeBytes)
  u16(350, extraInodeBytes)
  u32(352, 2)
  // All groups are one flexible group: their tables stand together at the front.
  out[372] = Math.max(1, Math.ceil(Math.log2(groups)))
  return out
}

export function encodeDescriptor(group: GroupDescriptor): Buffer {
  const out = Buffer.alloc(descriptorBytes)
  out.writeUInt32LE(group.blockBitmap, 0)
  out.writeUInt32LE(group.inodeBitmap, 4)
  out.writeUInt32LE(group.inodeTable, 8)
  out.writeUInt16LE(group.freeBlocks, 12)
  out.writeUInt16LE(group.freeInodes, 14)
  out.writeUInt16LE(group.directories, 16)
  return out
}
