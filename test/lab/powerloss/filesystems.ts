import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** A filesystem that state directories are on. */
export interface Filesystem {
  name: string
  /** The program that makes it on a disk, with its arguments, and the Debian package that has the program. */
  make: readonly [command: string, ...args: string[]]
  package: string
  /** The smallest disk that it takes (MiB). */
  diskMiB: number
  /**
   * The sector size of disks that it is safe on: they write a sector as a whole (bytes). XFS replays parts of blocks,
   * and btrfs has superblocks of 4 KiB without a journal: they rest on disks of the last twenty years, whose sectors
   * are of 4 KiB.
   */
  sectorBytes: number
  /** Most commit often, so that names get to the disk long before the bytes do. */
  mountOptions: readonly string[]
}

export const filesystems: readonly Filesystem[] = [
  {
    name: 'ext4',
    make: ['mkfs.ext4', '-q', '-O', '^metadata_csum_seed', '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
    package: 'e2fsprogs',
    diskMiB: 192,
    sectorBytes: 512,
    mountOptions: ['commit=1', 'commit=1,data=writeback', 'commit=1,data=journal', 'commit=1,nodelalloc', 'commit=30'],
  },
  {
    name: 'xfs',
    make: ['mkfs.xfs', '-q', '-K', '-s', 'size=4096'],
    package: 'xfsprogs',
    diskMiB: 320,
    sectorBytes: 4096,
    // It has no such interval; syncs of the journals commit.
    mountOptions: ['logbsize=32k', 'logbsize=256k', 'logbsize=32k,allocsize=64k', 'wsync'],
  },
  {
    name: 'btrfs',
    make: ['mkfs.btrfs', '-q', '-K'],
    package: 'btrfs-progs',
    diskMiB: 256,
    sectorBytes: 4096,
    mountOptions: ['commit=1', 'commit=1,flushoncommit', 'commit=1,nodatacow', 'commit=1,compress=zstd'],
  },
]

/** @returns why the filesystem cannot be made on this machine; undefined where it can */
export function whyNot({ make: [command], package: name }: Filesystem): string | undefined {
  const isThere = (process.env['PATH'] ?? '').split(delimiter).some((directory) => existsSync(join(directory, command)))
  return isThere ? undefined : `${command} is not installed (${name})`
}
