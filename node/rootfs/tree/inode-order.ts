import { Column } from '../column.ts'
import type { RootfsTree } from './rootfs-tree.ts'

/**
 * The inodes of a tree in the order in which filesystems number them: the root first, a directory's children together,
 * the directories themselves depth first. Positions count from 0.
 */
export class InodeOrder {
  readonly #inodes = new Column(Uint32Array)
  /** By inode, its position plus 1. */
  readonly #positions = new Column(Uint32Array)
  /** By position, the number of the inode's names; of a directory 2, and 1 for each directory in it. */
  readonly #links = new Column(Uint32Array)
  /** By position, the position of a directory's parent. */
  readonly #parents = new Column(Uint32Array)

  constructor(tree: RootfsTree) {
    for (let i = 0; i < tree.inodes.count; i++) this.#positions.push(0)
    const directories = [this.#add(tree.root, 0)]
    // Depth first without recursion: a path may have thousands of components.
    for (let position = directories.pop(); position !== undefined; position = directories.pop()) {
      const below: number[] = []
      for (const entry of tree.entries.sort(this.inodeAt(position))) {
        const inode = tree.entries.inodeOf(entry)
        const isDirectory = tree.inodes.typeOf(inode) === 'directory'
        let child = this.#positions.get(inode) - 1
        if (child < 0) {
          child = this.#add(inode, position)
          if (!isDirectory) this.#links.set(child, 0)
          if (isDirectory) below.push(child)
        }
        const counted = isDirectory ? position : child
        this.#links.set(counted, this.#links.get(counted) + 1)
      }
      directories.push(...below.toReversed())
    }
  }

  get count(): number {
    return this.#inodes.length
  }

  inodeAt(position: number): number {
    return this.#inodes.get(position)
  }

  /** @param inode one that has a name */
  positionOf(inode: number): number {
    return this.#positions.get(inode) - 1
  }

  linksAt(position: number): number {
    return this.#links.get(position)
  }

  parentOf(position: number): number {
    return this.#parents.get(position)
  }

  #add(inode: number, parent: number): number {
    const position = this.#inodes.push(inode)
    this.#positions.set(inode, position + 1)
    this.#links.push(2)
    this.#parents.push(parent)
    return position
  }
}
