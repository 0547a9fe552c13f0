import type { TarEntry } from '../../../support/tar-writer.ts'

interface Node {
  type: TarEntry['type']
  target: string
}

/** Most links that umoci follows on the path of one entry. */
const maxLinks = 255
/** Linux has no longer names. Longer paths and the directory that umoci unpacks to would exceed PATH_MAX together. */
const maxNameBytes = 255
const maxPathBytes = 3500

/**
 * The entries that exist after each entry of each layer, by resolved path, as in umoci 0.4.7
 * (oci/layer/tar_extract.go). It tells a generator of layers which entries are legal, and with which they can collide.
 * It models paths, not inodes, unlike the code that it helps to test.
 */
export class PathModel {
  #nodes = new Map<string, Node>([['', { type: 'directory', target: '' }]])
  /** Paths that the layer has touched, and their parents. */
  #upper = new Set<string>()

  nextLayer(): void {
    this.#upper = new Set()
  }

  paths(type?: TarEntry['type']): string[] {
    return [...this.#nodes]
      .filter(([path, node]) => path !== '' && (type === undefined || node.type === type))
      .map(([path]) => path)
  }

  /**
   * Resolves links, as securejoin: a missing entry, or one that is no directory, counts as a directory. Undefined for a
   * loop of links, and for a path that gets too long.
   */
  resolve(path: string): string | undefined {
    let done: string[] = []
    const left = path.split('/').toReversed()
    let links = 0
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      if (name === '' || name === '.') continue
      if (name === '..') {
        done.pop()
        continue
      }
      if (name.length > maxNameBytes) return undefined
      const node = this.#nodes.get([...done, name].join('/'))
      if (node?.type !== 'symlink') {
        done.push(name)
        continue
      }
      if (++links > maxLinks) return undefined
      if (node.target.startsWith('/')) done = []
      left.push(...node.target.split('/').toReversed())
    }
    const resolved = done.join('/')
    return resolved.length > maxPathBytes ? undefined : resolved
  }

  /** Applies an entry. @returns false for one that is not legal, which changes nothing */
  apply({ path, type, linkTarget = '' }: TarEntry): boolean {
    const clean = path.split('/').filter((part) => part !== '' && part !== '.')
    const name = clean.pop()
    if (name === undefined) return type === 'directory'
    const directory = this.resolve(clean.join('/'))
    if (directory === undefined) return false
    if (name.startsWith('.wh.')) {
      if (name === '.wh..wh..opq') this.#hide(directory, true)
      else this.#hide(join(directory, name.slice('.wh.'.length)), false)
      return true
    }
    for (let above = directory; above !== ''; above = parent(above)) {
      const there = this.#nodes.get(above)
      if (there !== undefined && there.type !== 'directory') return false
    }
    const at = join(directory, name)
    let node: Node = { type, target: linkTarget }
    if (type === 'hardlink') {
      // The entry at the place of the link goes first, so it is no target any more.
      const before = new Map(this.#nodes)
      this.#remove(at)
      const found = this.#hardlinkTarget(linkTarget)
      if (found === undefined) {
        this.#nodes = before
        return false
      }
      node = found
    }
    if (type !== 'directory' || this.#nodes.get(at)?.type !== 'directory') this.#remove(at)
    for (let above = directory; above !== ''; above = parent(above)) {
      this.#nodes.set(above, { type: 'directory', target: '' })
      this.#upper.add(above)
    }
    this.#nodes.set(at, node)
    this.#upper.add(at)
    return true
  }

  #hardlinkTarget(linkTarget: string): Node | undefined {
    const parts = linkTarget.split('/').filter((part) => part !== '' && part !== '.')
    const name = parts.pop() ?? ''
    const directory = this.resolve(parts.join('/'))
    const found = directory === undefined ? undefined : this.#nodes.get(join(directory, name))
    return found?.type === 'directory' ? undefined : found
  }

  #hide(path: string, opaque: boolean): void {
    for (const below of this.#nodes.keys()) {
      if (below !== path && !below.startsWith(path === '' ? '' : `${path}/`)) continue
      if (this.#upper.has(below) || below === '' || (opaque && below === path)) continue
      this.#remove(below)
    }
  }

  #remove(path: string): void {
    for (const below of this.#nodes.keys())
      if (below === path || below.startsWith(`${path}/`)) this.#nodes.delete(below)
  }
}

function join(directory: string, name: string): string {
  return directory === '' ? name : `${directory}/${name}`
}

function parent(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')))
}
