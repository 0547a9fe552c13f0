import { createRandom } from '../../../support/random.ts'
import { fitsUstar, maxElevenDigits, maxFieldPath, maxSevenDigits } from '../../../support/tar-header.ts'
import type { SparseContent, TarEntry } from '../../../support/tar-writer.ts'
import { PathModel } from './path-model.ts'
import { aclBytes, type AclEntry } from './posix-acl-bytes.ts'

/** Few names, so that entries meet. */
const commonNames = ['a', 'b', 'c', 'd', 'e']
const rareNames = [
  'caf\xe9',
  'snow\xe2\x98\x83',
  'new\nline',
  'back\\slash',
  ' ',
  'n'.repeat(255),
  'm'.repeat(120),
  '\x01\x7f\xff',
  '.dot',
  'wh.',
  'x.wh.y',
]
/** cap_net_bind_service=ep, struct vfs_cap_data revisions 2 and 3 of linux/capability.h. */
const capabilities = [
  '\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00',
  `\x01\x00\x00\x03\x00\x04\x00\x00${'\x00'.repeat(12)}\xe8\x03\x00\x00`,
]
/** Attributes that are not kept: they belong to this host, to overlayfs, or to no namespace that takes them. */
const droppedAttributes = [
  'security.selinux',
  'trusted.overlay.opaque',
  'trusted.overlay.redirect',
  'system.other',
  'nowhere.at',
  'noprefix',
]
const modes = [0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0, 0o7777, 0o6711, 0o2070]
const ids = [0, 1, 1000, 65_534, 65_536, 2_097_151, 2_097_152, 2 ** 31 - 1, 2 ** 31 + 5, 2 ** 32 - 2]
/** umoci counts nanoseconds in 64 bits, so to 2262. The ext4 that it unpacks to has no times before 1901. */
const seconds = [0, 1, -1, 1_719_792_000, 2 ** 31 - 1, 2 ** 31, 2 ** 32 + 7, 2 ** 33 + 1, -(2 ** 31) + 1, -100_000_000]
const sizes = [0, 0, 1, 100, 511, 512, 513, 4095, 4096, 4097, 8192, 20_000, 131_072]
const longTargets = ['x'.repeat(59), 'x'.repeat(60), `/${'y'.repeat(200)}`, 'z'.repeat(4095)]

/**
 * Random layers of an image: 1 to 6, of few names, so that all kinds of entries follow each other on the same path.
 * umoci accepts all of them. They have no paths through anything but directories, no hard links to directories, to
 * nothing, or to the entry that the link replaces, no loops of links, no user attributes but of files and directories,
 * no default ACLs but of directories, and no more attributes than one ext4 block has room for.
 */
export function randomLayers(seed: number): TarEntry[][] {
  const generator = new Generator(seed)
  return generator.layers()
}

class Generator {
  readonly #random: ReturnType<typeof createRandom>
  readonly #model = new PathModel()
  #contents: Buffer[] = []

  constructor(seed: number) {
    this.#random = createRandom(seed)
  }

  layers(): TarEntry[][] {
    return Array.from({ length: 1 + this.#random.below(6) }, () => {
      this.#model.nextLayer()
      this.#contents = []
      const wanted = this.#chance(0.05) ? 0 : 1 + this.#random.below(25)
      const entries: TarEntry[] = []
      for (let tries = 0; entries.length < wanted && tries < 4 * wanted; tries++) {
        const entry = this.#encoded(this.#entry())
        if (this.#model.apply(entry)) entries.push(entry)
      }
      return entries
    })
  }

  #entry(): TarEntry {
    const kind = this.#random.below(100)
    if (kind < 30) return this.#described(this.#file())
    if (kind < 50)
      return this.#described({
        path: this.#chance(0.08) ? this.#pick(['.', './', '/']) : this.#path(),
        type: 'directory',
      })
    if (kind < 62) return this.#described({ path: this.#path(), type: 'symlink', linkTarget: this.#target() })
    if (kind < 74) return this.#hardlink()
    if (kind < 86) return { path: this.#whiteout(), type: 'file' }
    if (kind < 92) return { path: this.#opaque(), type: 'file' }
    if (kind < 95) return this.#described({ path: this.#path(), type: 'fifo' })
    const type = this.#pick(['character', 'block'] as const)
    const device = this.#pick([
      { major: 1, minor: 3 },
      { major: 0, minor: 0 },
      { major: 255, minor: 255 },
      { major: 256, minor: 255 },
      { major: 259, minor: 300 },
      { major: 4095, minor: 1_048_575 },
      { major: 8, minor: 256 },
    ])
    return this.#described({ path: this.#path(), type, device })
  }

  #file(): TarEntry {
    const entry: TarEntry = { path: this.#path(), type: 'file' }
    if (this.#chance(0.1)) return { ...entry, sparse: this.#sparse() }
    if (this.#contents.length > 0 && this.#chance(0.2)) return { ...entry, content: this.#pick(this.#contents) }
    const size = this.#chance(0.2) ? this.#random.below(100_000) : this.#pick(sizes)
    const content = this.#chance(0.1) ? Buffer.alloc(size) : this.#random.bytes(size)
    this.#contents.push(content)
    return { ...entry, content }
  }

  /** The formats lack old GNU headers, because umoci refuses them. */
  #sparse(): SparseContent {
    const pieces: SparseContent['pieces'][number][] = []
    let end = 0
    for (let i = this.#random.below(8); i > 0; i--) {
      const offset = end + this.#pick([0, 512, 4096, 10_000, 65_536, 300_000])
      const bytes = this.#random.bytes(this.#pick([1, 512, 4096, 5000]))
      pieces.push({ offset, bytes })
      end = offset + bytes.length
    }
    return { sizeBytes: end + this.#pick([0, 1, 4096, 50_000]), pieces, format: this.#pick(['0.0', '0.1', '1.0']) }
  }

  #hardlink(): TarEntry {
    const there = this.#model.paths().filter((path) => path !== '')
    const linkTarget = there.length > 0 && this.#chance(0.8) ? this.#styled(this.#pick(there)) : this.#path()
    return { path: this.#path(), type: 'hardlink', linkTarget }
  }

  #whiteout(): string {
    const there = this.#model.paths()
    const path = there.length > 0 && this.#chance(0.7) ? this.#pick(there) : this.#plainPath()
    const slash = path.lastIndexOf('/')
    // Nobody could write a whiteout whose name is too long with its mark.
    const name = path.slice(slash + 1).slice(0, 251)
    return this.#styled(`${path.slice(0, slash + 1)}.wh.${name}`)
  }

  #opaque(): string {
    const directories = this.#model.paths('directory')
    if (this.#chance(0.1) || directories.length === 0) return this.#styled('.wh..wh..opq')
    return this.#styled(`${this.#chance(0.8) ? this.#pick(directories) : this.#plainPath()}/.wh..wh..opq`)
  }

  #described(entry: TarEntry): TarEntry {
    const { type } = entry
    const mode = this.#chance(0.2) ? this.#random.below(0o10000) : this.#pick(modes)
    const nanoseconds = this.#chance(0.5) ? 0 : this.#random.below(1_000_000_000)
    const xattrs = this.#chance(0.25) ? this.#xattrs(type, mode) : {}
    return {
      ...entry,
      mode,
      uid: this.#pick(ids),
      gid: this.#pick(ids),
      mtime: { seconds: this.#pick(seconds), nanoseconds },
      ...(Object.keys(xattrs).length > 0 && { xattrs }),
    }
  }

  #xattrs(type: TarEntry['type'], mode: number): Record<string, string> {
    const xattrs: Record<string, string> = {}
    const value = (): string => this.#random.bytes(this.#pick([0, 1, 3, 20, 60, 300])).toString('latin1')
    if (type === 'file' || type === 'directory')
      for (let i = this.#random.below(4); i > 0; i--)
        xattrs[`user.${this.#pick(['one', 'two', 'three', 'n'.repeat(100)])}`] = value()
    if (this.#chance(0.3)) xattrs['trusted.lab'] = value()
    if (this.#chance(0.2)) xattrs['security.other'] = value()
    if (this.#chance(0.2)) xattrs[this.#pick(droppedAttributes)] = value()
    if (type === 'file' && this.#chance(0.3)) xattrs['security.capability'] = this.#pick(capabilities)
    if (type === 'file' && this.#chance(0.1)) xattrs['user.large'] = this.#random.bytes(1500).toString('latin1')
    if (this.#chance(0.5)) xattrs['system.posix_acl_access'] = aclBytes(this.#acl(mode))
    if (type === 'directory' && this.#chance(0.5)) xattrs['system.posix_acl_default'] = aclBytes(this.#acl(mode))
    return xattrs
  }

  #acl(mode: number): AclEntry[] {
    const consistent = this.#chance(0.4)
    const permissions = (shift: number): number => (consistent ? (mode >> shift) & 7 : this.#random.below(8))
    const named: AclEntry[] = []
    if (this.#chance(0.5)) named.push({ tag: 'namedUser', permissions: this.#random.below(8), id: this.#pick(ids) })
    const groups: AclEntry[] = []
    if (this.#chance(0.4)) groups.push({ tag: 'namedGroup', permissions: this.#random.below(8), id: this.#pick(ids) })
    const masked = named.length > 0 || groups.length > 0 || this.#chance(0.2)
    return [
      { tag: 'user', permissions: permissions(6) },
      ...named,
      { tag: 'group', permissions: permissions(3) },
      ...groups,
      ...(masked ? [{ tag: 'mask', permissions: permissions(3) } as const] : []),
      { tag: 'other', permissions: permissions(0) },
    ]
  }

  /** Chooses one of the encodings that can hold all of the entry. */
  #encoded(entry: TarEntry): TarEntry {
    const { path, linkTarget = '', uid = 0, gid = 0, mtime = { seconds: 0, nanoseconds: 0 } } = entry
    if (entry.sparse !== undefined || entry.xattrs !== undefined || mtime.nanoseconds !== 0) return entry
    const plain =
      fitsUstar(path) &&
      linkTarget.length <= maxFieldPath &&
      Math.max(uid, gid) <= maxSevenDigits &&
      mtime.seconds >= 0 &&
      mtime.seconds <= maxElevenDigits
    return { ...entry, encoding: this.#pick(plain ? (['pax', 'gnu', 'ustar'] as const) : (['pax', 'gnu'] as const)) }
  }

  #target(): string {
    const kind = this.#random.below(10)
    if (kind < 1) return this.#pick(longTargets)
    if (kind < 2) return this.#pick(['.', '..', '../..', '/', './/a/', '/a/../b', '../../../c'])
    const there = this.#model.paths()
    const path = there.length > 0 && this.#chance(0.7) ? this.#pick(there) : this.#plainPath()
    return this.#chance(0.5) ? `/${path}` : `${'../'.repeat(this.#random.below(3))}${path}`
  }

  /** Up to four names. */
  #plainPath(): string {
    return Array.from({ length: 1 + this.#pick([0, 0, 0, 1, 1, 1, 2, 3]) }, () =>
      this.#pick(this.#chance(0.06) ? rareNames : commonNames),
    ).join('/')
  }

  #path(): string {
    const there = this.#model.paths()
    return this.#styled(there.length > 0 && this.#chance(0.3) ? this.#pick(there) : this.#plainPath())
  }

  /** One of many ways to write a path. */
  #styled(path: string): string {
    const slashes = this.#chance(0.1)
      ? path.replaceAll('/', '//')
      : this.#chance(0.1)
        ? path.replaceAll('/', '/./')
        : path
    return `${this.#pick(['', '', '', './', '/', './/', '/./'])}${slashes}${this.#chance(0.3) && !path.includes('.wh.') ? '/' : ''}`
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#random.below(items.length)]!
  }

  #chance(probability: number): boolean {
    return this.#random.next() < probability
  }
}
