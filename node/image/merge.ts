import { P2pfsError } from '../../protocol/errors.ts'
import type { ByteString, LayerEntry, LayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsInode, RootfsTree } from './rootfs-tree.ts'

/** Links followed on the way to one entry: the kernel's own bound is 40; more is a loop. */
const maxLinks = 255

/** A directory that no layer describes: what mkdir makes, but for its time, which must not depend on when. */
function plainDirectory(): RootfsInode {
  return {
    type: 'directory',
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: { seconds: 0, nanoseconds: 0 },
    xattrs: [],
    linkTarget: '',
    device: { major: 0, minor: 0 },
    sizeBytes: 0,
    extents: [],
    children: new Map(),
  }
}

/**
 * What the layers amount to, as an unpacker that runs as root makes it: the OCI image spec, "Applying changesets".
 * A whiteout or opaque marker hides what lower layers have, wherever in its layer it stands.
 * @param layers lowest first
 * @throws invalid naming the entry, for a hard link to nothing, or a path through something that is no directory
 */
export function mergeLayers(layers: readonly LayerIndex[]): RootfsTree {
  const root = plainDirectory()
  for (const [i, { entries, diffId }] of layers.entries()) {
    const merge = new LayerMerge(root, i)
    for (const entry of entries) {
      try {
        merge.apply(entry)
      } catch (cause) {
        if (!(cause instanceof P2pfsError)) throw cause
        throw new P2pfsError(cause.code, `layer ${diffId}, entry ${JSON.stringify(entry.path)}: ${cause.message}`, { cause, layer: diffId, entry: entry.path })
      }
    }
  }
  return { root }
}

class LayerMerge {
  readonly #root: RootfsInode
  readonly #layer: number
  /** What this layer itself has put there: its own markers do not hide that. */
  readonly #own = new Set<RootfsInode>()

  constructor(root: RootfsInode, layer: number) {
    this.#root = root
    this.#layer = layer
  }

  apply(entry: LayerEntry): void {
    if (entry.type === 'opaque') return this.#hideBelow(this.#find(entry.path))
    if (entry.path === '') return this.#describe(this.#root, entry)
    const slash = entry.path.lastIndexOf('/')
    const name = entry.path.slice(slash + 1)
    const parentPath = slash < 0 ? '' : entry.path.slice(0, slash)
    if (entry.type === 'whiteout') return this.#whiteout(this.#find(parentPath), name)
    const children = this.#parent(parentPath).children!
    const there = children.get(name)
    if (entry.type === 'hardlink') {
      const target = this.#find(entry.linkTarget, false)
      if (target === undefined || target.type === 'directory') {
        throw new P2pfsError('invalid', `hard link to ${JSON.stringify(entry.linkTarget)}, which is ${target === undefined ? 'not there' : 'a directory'}`)
      }
      children.set(name, target)
      this.#own.add(target)
    } else if (entry.type === 'directory' && there?.type === 'directory') {
      this.#describe(there, entry)
    } else {
      const node = plainDirectory()
      this.#describe(node, entry)
      children.set(name, node)
    }
  }

  /** Gives the inode the entry's type and metadata; children stay. */
  #describe(node: RootfsInode, entry: LayerEntry): void {
    const { mode, uid, gid, mtime, xattrs, linkTarget, device, sizeBytes } = entry
    const type = entry.type as RootfsInode['type']
    const extents = entry.extents.map(({ fileOffset, lengthBytes, regionOffset }) => ({ layer: this.#layer, fileOffset, lengthBytes, regionOffset }))
    Object.assign(node, { type, mode, uid, gid, mtime, xattrs, linkTarget, device, sizeBytes, extents } satisfies Partial<RootfsInode>)
    if (type !== 'directory') delete node.children
    this.#own.add(node)
  }

  #whiteout(parent: RootfsInode | undefined, name: ByteString): void {
    const node = parent?.children?.get(name)
    if (node === undefined) return
    if (!this.#own.has(node)) parent!.children!.delete(name)
    // The layer has put the directory back: only what it did not put into it goes.
    else this.#hideBelow(node)
  }

  #hideBelow(directory: RootfsInode | undefined): void {
    for (const [name, node] of directory?.children ?? []) {
      if (!this.#own.has(node)) directory!.children!.delete(name)
      else this.#hideBelow(node)
    }
  }

  /** The directory at `path`; what is missing on the way is made. */
  #parent(path: ByteString): RootfsInode {
    return this.#walk(path, true, true)!
  }

  #find(path: ByteString, followLast = true): RootfsInode | undefined {
    return this.#walk(path, followLast, false)
  }

  /** Follows symlinks within the root, as if it were `/`. */
  #walk(path: ByteString, followLast: boolean, make: boolean): RootfsInode | undefined {
    const trail = [this.#root]
    const left = path.split('/').toReversed()
    let links = 0
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      if (name === '' || name === '.') continue
      if (name === '..') {
        if (trail.length > 1) trail.pop()
        continue
      }
      const directory = trail.at(-1)!
      let node = directory.children?.get(name)
      if (node === undefined || (make && node.type !== 'directory' && node.type !== 'symlink')) {
        if (!make) return undefined
        node = plainDirectory()
        directory.children!.set(name, node)
      }
      // What the layer puts something into is there by the layer, too.
      if (make) this.#own.add(node)
      if (node.type === 'symlink' && (followLast || left.length > 0)) {
        if (++links > maxLinks) throw new P2pfsError('invalid', 'too many symbolic links on the way')
        if (node.linkTarget.startsWith('/')) trail.length = 1
        left.push(...node.linkTarget.split('/').toReversed())
        continue
      }
      trail.push(node)
    }
    return trail.at(-1)
  }
}
