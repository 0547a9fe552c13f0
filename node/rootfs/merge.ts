import { P2pfsError } from '../../protocol/errors.ts'
import type { ByteString, LayerEntry, LayerIndex } from '../../protocol/layer-index.ts'
import { inheritedXattrs, keptXattrs } from './kept-xattrs.ts'
import type { RootfsInode, RootfsTree } from './rootfs-tree.ts'

/** Most symbolic links on the way to one entry, as in umoci: more are a loop. */
const maxLinks = 255
/** NAME_MAX of include/uapi/linux/limits.h, and PATH_MAX without its closing zero, bytes. */
const maxNameBytes = 255
const maxTargetBytes = 4095
const setgid = 0o2000
/** One list for the many inodes without extents. */
const none: RootfsInode['extents'] = []

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
    extents: [],
    children: new Map(),
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
 *   way; names and attributes that the kernel refuses
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
        throw new P2pfsError(cause.code, `layer ${diffId}, entry ${JSON.stringify(entry.path)}: ${cause.message}`, {
          cause,
          layer: diffId,
          entry: entry.path,
        })
      }
    }
  }
  return { root }
}

/** One step on the way down from the root, with links followed. */
interface Step {
  name: ByteString
  /** Undefined where nothing has this name. */
  node: RootfsInode | undefined
}

class LayerMerge {
  readonly #root: RootfsInode
  readonly #layer: number
  /**
   * The layer's own names in each directory: the layer has put them there, or has put something below them. Its markers
   * do not hide these names. They are names, not inodes: a hard link to a file of a lower layer leaves the file's other
   * names to that layer.
   */
  readonly #own = new Map<RootfsInode, Set<ByteString>>()
  /** Directories without any name of lower layers left in them. */
  readonly #hidden = new Set<RootfsInode>()
  /** Parent of the last entry: most entries of a tar stand beside the one before. */
  #lastParent: { path: ByteString; directory: RootfsInode } | undefined

  constructor(root: RootfsInode, layer: number) {
    this.#root = root
    this.#layer = layer
  }

  apply(entry: LayerEntry): void {
    const [parentPath, name] = splitPath(entry.path)
    if (entry.type === 'opaque' || entry.type === 'whiteout') {
      // The marker may remove a link on the way to the last entry.
      this.#lastParent = undefined
      if (entry.type === 'opaque') this.#hideBelow(this.#find(entry.path))
      else this.#whiteout(this.#find(parentPath), name)
      return
    }
    if (entry.path === '') return this.#describe(this.#root, entry)
    const directory = this.#parent(parentPath)
    checkName(name)
    const children = directory.children!
    const there = children.get(name)
    if (entry.type === 'directory' && there?.type === 'directory') this.#describe(there, entry)
    else {
      // The old entry goes first: a hard link to it, or to something below it, is a link to nothing.
      if (there !== undefined) children.delete(name)
      const node = entry.type === 'hardlink' ? this.#linkTarget(entry.linkTarget) : this.#inode(entry)
      children.set(name, node)
      // Paths through this name may lead elsewhere now.
      if (there?.type === 'directory' || there?.type === 'symlink' || node.type === 'symlink')
        this.#lastParent = undefined
    }
    this.#markOwn(directory, name)
  }

  #describe(directory: RootfsInode, entry: LayerEntry): void {
    Object.assign(directory, this.#inode(entry), { children: directory.children! })
  }

  #inode(entry: LayerEntry): RootfsInode {
    const { uid, gid, mtime, linkTarget, device, sizeBytes } = entry
    const type = entry.type as RootfsInode['type']
    if (type === 'symlink' && (linkTarget === '' || linkTarget.length > maxTargetBytes))
      throw new P2pfsError('invalid', `link target of ${linkTarget.length} bytes; Linux takes 1 to ${maxTargetBytes}`)
    const { mode, xattrs } = keptXattrs(entry)
    const extents =
      entry.extents.length === 0
        ? none
        : entry.extents.map(({ fileOffset, lengthBytes, segmentOffset }) => ({
            layer: this.#layer,
            fileOffset,
            lengthBytes,
            segmentOffset,
          }))
    const node: RootfsInode = { type, mode, uid, gid, mtime, xattrs, linkTarget, device, sizeBytes, extents }
    if (type === 'directory') node.children = new Map()
    return node
  }

  /** Finds a hard link's target. A symlink as its last step is not followed: it is the target. */
  #linkTarget(path: ByteString): RootfsInode {
    const [parentPath, name] = splitPath(path)
    const target = path === '' ? this.#root : this.#find(parentPath)?.children?.get(name)
    if (target === undefined)
      throw new P2pfsError('invalid', `hard link to ${JSON.stringify(path)}, which is not there`)
    if (target.type === 'directory')
      throw new P2pfsError('invalid', `hard link to ${JSON.stringify(path)}, which is a directory`)
    return target
  }

  #whiteout(parent: RootfsInode | undefined, name: ByteString): void {
    const node = parent?.children?.get(name)
    if (node === undefined) return
    if (!this.#isOwn(parent!, name)) parent!.children!.delete(name)
    // The layer has put the directory back, so only names of lower layers in it go.
    else this.#hideBelow(node)
  }

  #hideBelow(top: RootfsInode | undefined): void {
    const left = top?.type === 'directory' ? [top] : []
    for (let directory = left.pop(); directory !== undefined; directory = left.pop()) {
      if (this.#hidden.has(directory)) continue
      this.#hidden.add(directory)
      for (const [name, node] of directory.children!) {
        if (!this.#isOwn(directory, name)) directory.children!.delete(name)
        else if (node.type === 'directory') left.push(node)
      }
    }
  }

  #isOwn(directory: RootfsInode, name: ByteString): boolean {
    return this.#own.get(directory)?.has(name) === true
  }

  #markOwn(directory: RootfsInode, name: ByteString): void {
    const names = this.#own.get(directory)
    if (names === undefined) this.#own.set(directory, new Set([name]))
    else names.add(name)
  }

  #parent(path: ByteString): RootfsInode {
    if (this.#lastParent?.path !== path) this.#lastParent = { path, directory: this.#makeDirectories(path) }
    return this.#lastParent.directory
  }

  /** Finds the directory at `path`, makes it the layer's own, and makes missing directories on the way. */
  #makeDirectories(path: ByteString): RootfsInode {
    let directory = this.#root
    for (const { name, node } of this.#resolve(path)) {
      let next = node
      if (next?.type !== 'directory') {
        if (next !== undefined && this.#isOwn(directory, name))
          throw new P2pfsError('invalid', `${JSON.stringify(name)} on its path is no directory`)
        checkName(name)
        next = plainDirectory(directory)
        directory.children!.set(name, next)
      }
      this.#markOwn(directory, name)
      directory = next
    }
    return directory
  }

  #find(path: ByteString): RootfsInode | undefined {
    const trail = this.#resolve(path)
    return trail.length === 0 ? this.#root : trail.at(-1)!.node
  }

  /**
   * Follows a path, with symlinks resolved as if the root were `/`. A step that is missing or is no directory counts as
   * a directory: `..` leads back from it.
   */
  #resolve(path: ByteString): Step[] {
    const trail: Step[] = []
    const left = path.split('/').toReversed()
    let links = 0
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      if (name === '' || name === '.') continue
      if (name === '..') {
        trail.pop()
        continue
      }
      const directory = trail.length === 0 ? this.#root : trail.at(-1)!.node
      const node = directory?.children?.get(name)
      if (node?.type !== 'symlink') {
        trail.push({ name, node })
        continue
      }
      if (++links > maxLinks) throw new P2pfsError('invalid', 'too many symbolic links on its path')
      if (node.linkTarget.startsWith('/')) trail.length = 0
      left.push(...node.linkTarget.split('/').toReversed())
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
