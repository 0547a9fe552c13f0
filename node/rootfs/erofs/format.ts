/** On-disk constants of EROFS: fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst of the kernel. */

export const blockBytes = 4096
export const superblockOffset = 1024
export const superblockBytes = 128
export const magic = 0xe0f5e1e2

/** Unit of inode numbers, which are offsets on the device, bytes. */
export const slotBytes = 32
/** Length of the extended form, which has a 64-bit time, 32-bit ids and link count. */
export const inodeBytes = 64
export const direntBytes = 12
/** Header before an inode's own attributes; the format counts what follows it in units of 4 bytes. */
export const xattrHeaderBytes = 12
/** i_xattr_icount has 16 bits. */
export const maxXattrBytes = xattrHeaderBytes + (0xffff - 1) * 4

export const compatible = { checksum: 0x1, mtime: 0x2 } as const
export const incompatible = { chunkedFile: 0x4, deviceTable: 0x8 } as const
/** Length of an entry of the device table, and unit of the table's place (bytes). */
export const deviceSlotBytes = 128

/** Place of an inode's data: i_format, bits 1 to 3. */
export const layouts = { plain: 0, inline: 2, chunks: 4 } as const

/** Stands for "no block" in a chunk map, and in an inode without blocks. */
export const nullBlock = 0xffffffff
/** Greatest chunk size, as a power of two of blocks: the format has 5 bits for it. */
export const maxChunkBits = 31
