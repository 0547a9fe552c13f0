import type { ByteString } from '../../../protocol/layer-entry.ts'
import { BytePool } from './byte-pool.ts'
import { DirectoryEntries } from './directory-entries.ts'
import { InodeTable } from './inode-table.ts'
import type { RootfsInode } from './rootfs-inode.ts'

/**
 * The merged layers of an image: inodes by number, and the names that lead to them. Hard links are several names of
 * one.
 */
export class RootfsTree {
  readonly #pool = new BytePool()
  readonly inodes = new InodeTable(this.#pool)
  readonly entries = new DirectoryEntries(this.#pool)
  readonly root: number

  constructor(root: RootfsInode) {
    this.root = this.inodes.add(root)
  }

  /** The first path of an inode in the order of names, for errors: it walks through the tree. */
  pathOf(inode: number): ByteString {
    const directories = [{ directory: this.root, path: '' }]
    for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
      const below: typeof directories = []
      for (const entry of this.entries.sort(next.directory)) {
        const child = this.entries.inodeOf(entry)
        const path = next.path === '' ? this.entries.nameOf(entry) : `${next.path}/${this.entries.nameOf(entry)}`
        if (child === inode) return path
        if (this.inodes.typeOf(child) === 'directory') below.push({ directory: child, path })
      }
      directories.push(...below.toReversed())
    }
    return ''
  }
}
