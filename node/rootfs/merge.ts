import { P2pfsError } from '../../protocol/errors.ts'
import type { ByteString, LayerEntry } from '../../protocol/layer-entry.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { inheritedXattrs, keptXattrs } from './kept-xattrs.ts'
import { checkMetadata, metadataBytes, type LayerLimits } from './layer-limits.ts'
import { Column } from './column.ts'
import type { RootfsInode } from './tree/rootfs-inode.ts'
import { RootfsTree } from './tree/rootfs-tree.ts'

/** Most symbolic links on the way to one entry, as in umoci: more are a loop. */
const maxLinks = 255
/** NAME_MAX of include/uapi/linux/limits.h, and PATH_MAX without its closing zero, bytes. */
const maxNameBytes = 255
const maxTargetBytes = 4095
const setgid = 0o2000

/**
 * A directory that no layer describes, as mkdir makes it as root under umask 022: it inherits from a setgid directory
 * or from a default ACL. Its time is 0, because the rootfs must not depend on when it is made.
 */
function plainDirectory(parent?: RootfsInode): RootfsInode {
  const { mode, xattrs } = parent === undefined ? { mode: 0o755, xattrs: [] } : inheritedXattrs(parent)
  const inheritsGroup = parent !== undefined && (parent.mode & setgid) !== 0
  return {
    type: 'directory',
    mode: inheritsGroup ? mode | setgid : mode,
    uid: 0,
    gid: inheritsGroup ? parent.gid : 0,
    mtime: { seconds: 0, nanoseconds: 0 },
    xattrs,
    linkTarget: '',
    device: { major: 0, minor: 0 },
    sizeBytes: 0,
    layer: 0,
    extents: [],
  }
}

/**
 * Merges the layers as `umoci unpack` does when it runs as root: the OCI image spec, "Applying changesets". A whiteout
 * or opaque marker hides entries of lower layers, wherever it stands in its own layer. The time is in proportion to the
 * number of entries, whatever they are.
 *
 * One case that umoci refuses is taken, as containers on overlayfs see it: where a path leads through an entry of a
 * lower layer that is no directory, a directory replaces that entry.
 *
 * @param layers lowest first
 * @throws invalid naming the entry, for entries that no unpacker takes: a hard link to nothing, to a directory, or to
 *   the entry that it replaces; a path through an entry of the same layer that is no directory; a loop of links on the
 *   way; names and attributes that the kernel refuses; without an entry, for more metadata than the limits allow
 */
export function mergeLayers(
  layers: readonly LayerIndex[],
  limits: Pick<LayerLimits, 'maxMetadataBytes'> = { maxMetadataBytes: Infinity },
): RootfsTree {
  const tree = new RootfsTree(plainDirectory())
  const owners = new Column(Uint16Array)
  let allMetadataBytes = 0
  for (const [i, { entries, diffId }] of layers.entries()) {
    const merge = new LayerMerge(tree, owners, i)
    for (const entry of entries) {
      allMetadataBytes += metadataBytes(entry)
      checkMetadata(allMetadataBytes, limits)
      try {
        merge.apply(entry)
      } catch (cause) {
        if (!(cause instanceof P2pfsError)) throw cause
        throw new P2pfsError(cause.code, `layer ${diffId}, entry ${JSON.stringify(entry.path)}: ${cause.message}`, {
          cause,
          layer: diffId,
          entry: entry.path,
        })
      }
    }
  }
  return tree
}

/** One step on the way down from the root, with links followed. */
interface Step {
  name: ByteString
  /** Undefined where nothing has this name. */
  inode: number | undefined
}

class LayerMerge {
  readonly #tree: RootfsTree
  /**
   * For each directory entry the number of the last layer, from 1, that has put it there or has put something below it.
   * These names are the layer's own: its markers do not hide them. They are names, not inodes: a hard link to a file of
   * a lower layer leaves the file's other names to that layer.
   */
  readonly #owners: Column
  readonly #layer: number
  /** Directories without any name of lower layers left in them. */
  readonly #hidden = new Set<number>()
  /** Parent of the last entry: most entries of a tar stand beside the one before. */
  #lastParent: { path: ByteString; directory: number } | undefined

  constructor(tree: RootfsTree, owners: Column, layer: number) {
    this.#tree = tree
    this.#owners = owners
    this.#layer = layer
  }

  apply(entry: LayerEntry): void {
    const { entries, inodes } = this.#tree
    const [parentPath, name] = splitPath(entry.path)
    if (entry.type === 'opaque' || entry.type === 'whiteout') {
      // The marker may remove a link on the way to the last entry.
      this.#lastParent = undefined
      if (entry.type === 'opaque') this.#hideBelow(this.#find(entry.path))
      else this.#whiteout(this.#find(parentPath), name)
      return
    }
    if (entry.path === '') return inodes.set(this.#tree.root, this.#inode(entry))
    const directory = this.#parent(parentPath)
    checkName(name)
    let place = entries.find(directory, name)
    const oldInode = place === undefined ? undefined : entries.inodeOf(place)
    const oldType = oldInode === undefined ? undefined : inodes.typeOf(oldInode)
    if (entry.type === 'directory' && oldType === 'directory') inodes.set(oldInode!, this.#inode(entry))
    else {
      // The old entry goes first: a hard link to it, or to something below it, is a link to nothing.
      if (place !== undefined) entries.remove(place)
      const inode = entry.type === 'hardlink' ? this.#linkTarget(entry.linkTarget) : inodes.add(this.#inode(entry))
      place = entries.set(directory, name, inode)
      // Paths through this name may lead elsewhere now.
      if (oldType === 'directory' || oldType === 'symlink' || inodes.typeOf(inode) === 'symlink')
        this.#lastParent = undefined
    }
    this.#markOwn(place!)
  }

  #inode(entry: LayerEntry): RootfsInode {
    const { uid, gid, mtime, linkTarget, device, sizeBytes, extents } = entry
    const type = entry.type as RootfsInode['type']
    if (type === 'symlink' && (linkTarget === '' || linkTarget.length > maxTargetBytes))
      throw new P2pfsError('invalid', `link target of ${linkTarget.length} bytes; Linux takes 1 to ${maxTargetBytes}`)
    const { mode, xattrs } = keptXattrs(entry)
    return { type, mode, uid, gid, mtime, xattrs, linkTarget, device, sizeBytes, layer: this.#layer, extents }
  }

  /** Finds a hard link's target. A symlink as its last step is not followed: it is the target. */
  #linkTarget(path: ByteString): number {
    const { inodes, root } = this.#tree
    const [parentPath, name] = splitPath(path)
    const target = path === '' ? root : this.#child(this.#find(parentPath), name)
    if (target === undefined)
      throw new P2pfsError('invalid', `hard link to ${JSON.stringify(path)}, which is not there`)
    if (inodes.typeOf(target) === 'directory')
      throw new P2pfsError('invalid', `hard link to ${JSON.stringify(path)}, which is a directory`)
    return target
  }

  #whiteout(parent: number | undefined, name: ByteString): void {
    const { entries } = this.#tree
    const entry = parent === undefined ? undefined : entries.find(parent, name)
    if (entry === undefined) return
    if (!this.#isOwn(entry)) entries.remove(entry)
    // The layer has put the directory back, so only names of lower layers in it go.
    else this.#hideBelow(entries.inodeOf(entry))
  }

  #hideBelow(top: number | undefined): void {
    const { entries, inodes } = this.#tree
    const left = top === undefined || inodes.typeOf(top) !== 'directory' ? [] : [top]
    for (let directory = left.pop(); directory !== undefined; directory = left.pop()) {
      if (this.#hidden.has(directory)) continue
      this.#hidden.add(directory)
      for (const entry of entries.of(directory)) {
        const inode = entries.inodeOf(entry)
        if (!this.#isOwn(entry)) entries.remove(entry)
        else if (inodes.typeOf(inode) === 'directory') left.push(inode)
      }
    }
  }

  #isOwn(entry: number): boolean {
    return entry < this.#owners.length && this.#owners.get(entry) === this.#layer + 1
  }

  #markOwn(entry: number): void {
    while (this.#owners.length <= entry) this.#owners.push(0)
    this.#owners.set(entry, this.#layer + 1)
  }

  #parent(path: ByteString): number {
    if (this.#lastParent?.path !== path) this.#lastParent = { path, directory: this.#makeDirectories(path) }
    return this.#lastParent.directory
  }

  /** Finds the directory at `path`, makes it the layer's own, and makes missing directories on the way. */
  #makeDirectories(path: ByteString): number {
    const { entries, inodes, root } = this.#tree
    let directory = root
    for (const { name, inode } of this.#resolve(path)) {
      let entry = entries.find(directory, name)
      if (inode === undefined || inodes.typeOf(inode) !== 'directory') {
        if (entry !== undefined && this.#isOwn(entry))
          throw new P2pfsError('invalid', `${JSON.stringify(name)} on its path is no directory`)
        checkName(name)
        entry = entries.set(directory, name, inodes.add(plainDirectory(inodes.get(directory))))
      }
      this.#markOwn(entry!)
      directory = entries.inodeOf(entry!)
    }
    return directory
  }

  #child(directory: number | undefined, name: ByteString): number | undefined {
    if (directory === undefined || this.#tree.inodes.typeOf(directory) !== 'directory') return undefined
    const entry = this.#tree.entries.find(directory, name)
    return entry === undefined ? undefined : this.#tree.entries.inodeOf(entry)
  }

  #find(path: ByteString): number | undefined {
    const trail = this.#resolve(path)
    return trail.length === 0 ? this.#tree.root : trail.at(-1)!.inode
  }

  /**
   * Follows a path, with symlinks resolved as if the root were `/`. A step that is missing or is no directory counts as
   * a directory: `..` leads back from it.
   */
  #resolve(path: ByteString): Step[] {
    const { inodes, root } = this.#tree
    const trail: Step[] = []
    const left = path.split('/').toReversed()
    let links = 0
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      if (name === '' || name === '.') continue
      if (name === '..') {
        trail.pop()
        continue
      }
      const inode = this.#child(trail.length === 0 ? root : trail.at(-1)!.inode, name)
      if (inode === undefined || inodes.typeOf(inode) !== 'symlink') {
        trail.push({ name, inode })
        continue
      }
      if (++links > maxLinks) throw new P2pfsError('invalid', 'too many symbolic links on its path')
      const { linkTarget } = inodes.get(inode)
      if (linkTarget.startsWith('/')) trail.length = 0
      left.push(...linkTarget.split('/').toReversed())
    }
    return trail
  }
}

function splitPath(path: ByteString): [ByteString, ByteString] {
  const slash = path.lastIndexOf('/')
  return [slash < 0 ? '' : path.slice(0, slash), path.slice(slash + 1)]
}

function checkName(name: ByteString): void {
  if (name.length > maxNameBytes)
    throw new P2pfsError('invalid', `name of ${name.length} bytes; ${maxNameBytes} is the most`)
}
