/** On-disk constants of ext4: Documentation/filesystems/ext4 of the kernel, and fs/ext4/ext4.h. */

export const blockBytes = 4096
export const inodeBytes = 256
/** Fields behind the first 128 bytes of an inode: nanoseconds of times. Extended attributes follow them. Bytes. */
export const extraInodeBytes = 32
export const inodesPerBlock = blockBytes / inodeBytes
/** The most blocks and the most inodes of a group: its bitmaps have one block each. */
export const maxPerGroup = blockBytes * 8
export const rootInode = 2
/** Inodes 1 to 10 are reserved. */
export const firstInode = 11
export const descriptorBytes = 32

/** From this link count on a directory's is stored as 1, "many" (feature dir_nlink). */
export const maxDirectoryLinks = 65_000

export const inodeFlags = { index: 0x1000, extents: 0x80000 } as const

export const compatible = { extAttr: 0x8, dirIndex: 0x20, sparseSuper2: 0x200 } as const
export const incompatible = { fileType: 0x2, extents: 0x40, flexBg: 0x200 } as const
export const readOnlyCompatible = { largeFile: 0x2, dirNlink: 0x20, extraIsize: 0x40, readOnly: 0x1000 } as const
