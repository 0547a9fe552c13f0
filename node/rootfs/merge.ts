import { P2pfsError } from '../../protocol/errors.ts'
import type { ByteString, LayerEntry, LayerIndex } from '../../protocol/layer-index.ts'
import { inheritedXattrs, keptXattrs } from './kept-xattrs.ts'
import type { RootfsInode, RootfsTree } from './rootfs-tree.ts'

/** Links followed on the way to one entry: umoci's bound; more is a loop. */
const maxLinks = 255
/** NAME_MAX and, without the closing zero, PATH_MAX of include/uapi/linux/limits.h, bytes. */
const maxNameBytes = 255
const maxTargetBytes = 4095
const setgid = 0o2000
/** One array for the many that are empty. */
const none: RootfsInode['extents'] = []

/**
 * A directory that no layer describes: what mkdir makes as root under umask 022, in a setgid directory or one with a default
 * ACL too; but for its time, which must not depend on when.
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
 * What the layers amount to, as `umoci unpack` makes it when it runs as root: the OCI image spec, "Applying changesets".
 * A whiteout or opaque marker hides what lower layers have, wherever in its layer it stands. Takes time in proportion to
 * the entries, whatever they are.
 *
 * One thing that umoci refuses is taken: a path through what a lower layer has as no directory makes it one, which is what
 * containers on overlayfs see.
 *
 * @param layers lowest first
 * @throws invalid naming the entry, for what no unpacker takes: a hard link to nothing, to a directory or to what it
 *   replaces itself; a path through something that is no directory in the same layer; a loop of links on the way; names and
 *   attributes that the kernel refuses
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

/** One step on the way down from the root, links followed; undefined where nothing is. */
interface Step {
  name: ByteString
  node: RootfsInode | undefined
}

class LayerMerge {
  readonly #root: RootfsInode
  readonly #layer: number
  /**
   * By directory, the names in it that this layer has put there or has put something below: its own markers do not hide
   * them. Names, not inodes: a hard link to a file of a lower layer does not make the file's other names its own.
   */
  readonly #own = new Map<RootfsInode, Set<ByteString>>()
  /** Directories below which nothing of lower layers is left. */
  readonly #hidden = new Set<RootfsInode>()
  /** Where the last entry went: most entries of a tar stand beside the one before. */
  #lastParent: { path: ByteString; directory: RootfsInode } | undefined

  constructor(root: RootfsInode, layer: number) {
    this.#root = root
    this.#layer = layer
  }

  apply(entry: LayerEntry): void {
    const [parentPath, name] = splitPath(entry.path)
    if (entry.type === 'opaque' || entry.type === 'whiteout') {
      // A link on the way to the last entry may go.
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
      // What stands there goes first: a link to it, or to what is below it, is a link to nothing.
      if (there !== undefined) children.delete(name)
      const node = entry.type === 'hardlink' ? this.#linkTarget(entry.linkTarget) : this.#inode(entry)
      children.set(name, node)
      // Ways that led through here, or past here when nothing was, lead elsewhere.
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

  /** The last step of a hard link's target is not followed: a link to a symlink is one. */
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
    // The layer has put the directory back: only what it did not put into it goes.
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

  /** The directory at `path`, as the layer's own; what is missing on the way is made. */
  #makeDirectories(path: ByteString): RootfsInode {
    let directory = this.#root
    for (const { name, node } of this.#resolve(path)) {
      let next = node
      if (next?.type !== 'directory') {
        if (next !== undefined && this.#isOwn(directory, name))
          throw new P2pfsError('invalid', `${JSON.stringify(name)} on the way is no directory`)
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
   * Follows symlinks within the root, as if it were `/`. What is not there, or no directory, is passed as a directory would
   * be: `..` after it leads back.
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
      if (++links > maxLinks) throw new P2pfsError('invalid', 'too many symbolic links on the way')
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
