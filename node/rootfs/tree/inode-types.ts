/** Types of inodes, as bits of their mode: inode(7). */
export const typeBits = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
} as const

/** The same in the entries of directories, in ext4 (EXT4_FT_*) as in EROFS (EROFS_FT_*). */
export const entryTypes = { file: 1, directory: 2, character: 3, block: 4, fifo: 5, symlink: 7 } as const
