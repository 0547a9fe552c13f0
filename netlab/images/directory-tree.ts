import { createHash } from 'node:crypto'
import { lstat, open, readdir, readlink } from 'node:fs/promises'
import { P2pfsError } from '../../protocol/errors.ts'
import { run } from '../hosts/process.ts'

/** Everything by which one directory entry can differ from another, in comparable form. */
export interface TreeEntry {
  type: string
  /** Permissions with setuid, setgid and sticky, octal. */
  mode: string
  uid: string
  gid: string
  /** Nanoseconds since the epoch. */
  mtime: string
  links: string
  /** The first path (bytewise) of the same inode: equal for files that are hard links of each other. */
  sameAs: string
  /** Files only: the filesystem decides on the size of a directory. */
  sizeBytes: string
  /** SHA-256; empty for empty files. */
  content: string
  linkTarget: string
  device: string
  /** `name=0xvalue`, sorted. */
  xattrs: string
}

/** The entries by their paths relative to the root. Paths are Latin-1, one character per byte; the root is `''`. */
export type Tree = ReadonlyMap<string, TreeEntry>

/** Files read at a time: enough to keep a disk busy. */
const concurrency = 8
const readBytes = 1 << 20

/** Reads all of a tree, contents too. As root, to see all attributes. */
export async function readTree(root: string, { signal }: { signal?: AbortSignal } = {}): Promise<Tree> {
  const xattrsByPath = await readXattrs(root, signal)
  const paths = await listPaths(root, signal)
  const tree = new Map<string, TreeEntry>()
  const inodes = new Map<string, { path: string; content: string }>()
  const entries = new Map<string, TreeEntry>()
  let next = 0
  const worker = async (): Promise<void> => {
    for (let i = next++; i < paths.length; i = next++) {
      signal?.throwIfAborted()
      const path = paths[i]!
      entries.set(path, await readEntry(root, path, inodes, xattrsByPath.get(path) ?? ''))
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
  for (const path of paths) {
    const entry = entries.get(path)!
    const first = inodes.get(entry.sameAs)
    tree.set(path, { ...entry, content: first?.content ?? entry.content, sameAs: first?.path ?? path })
  }
  return tree
}

/** All paths of the tree, sorted bytewise, the root first. */
async function listPaths(root: string, signal: AbortSignal | undefined): Promise<string[]> {
  const paths = ['']
  const pending = ['']
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    signal?.throwIfAborted()
    for (const entry of await readdir(absolute(root, directory), { withFileTypes: true, encoding: 'buffer' })) {
      const path = directory === '' ? entry.name.toString('latin1') : `${directory}/${entry.name.toString('latin1')}`
      paths.push(path)
      if (entry.isDirectory()) pending.push(path)
    }
  }
  return paths.sort()
}

/**
 * Reads one entry. For a file with several links, `sameAs` is its key in `inodes`, which gets the first of its paths,
 * and its content once.
 */
async function readEntry(
  root: string,
  path: string,
  inodes: Map<string, { path: string; content: string }>,
  xattrs: string,
): Promise<TreeEntry> {
  const location = absolute(root, path)
  const stat = await lstat(location, { bigint: true })
  const linked = !stat.isDirectory() && stat.nlink > 1n
  const inode = linked ? `${stat.dev}:${stat.ino}` : path
  let content = ''
  const seen = linked ? inodes.get(inode) : undefined
  if (linked && (seen === undefined || path < seen.path)) inodes.set(inode, { path, content: seen?.content ?? '' })
  if (stat.isFile() && seen === undefined) {
    content = stat.size === 0n ? '' : await hashFile(location)
    const group = inodes.get(inode)
    if (group !== undefined) group.content = content
  }
  const type = typeOf(stat)
  return {
    type,
    mode: (stat.mode & 0o7777n).toString(8),
    uid: String(stat.uid),
    gid: String(stat.gid),
    mtime: String(stat.mtimeNs),
    links: String(stat.nlink),
    sameAs: inode,
    sizeBytes: stat.isFile() ? String(stat.size) : '',
    content,
    linkTarget: stat.isSymbolicLink() ? (await readlink(location, 'buffer')).toString('latin1') : '',
    device: type === 'character' || type === 'block' ? String(stat.rdev) : '',
    xattrs,
  }
}

function typeOf(stat: Awaited<ReturnType<typeof lstat>>): string {
  if (stat.isFile()) return 'file'
  if (stat.isDirectory()) return 'directory'
  if (stat.isSymbolicLink()) return 'symlink'
  if (stat.isCharacterDevice()) return 'character'
  if (stat.isBlockDevice()) return 'block'
  return stat.isFIFO() ? 'fifo' : 'socket'
}

async function hashFile(path: Buffer): Promise<string> {
  await using file = await open(path)
  const hash = createHash('sha256')
  const { size } = await file.stat()
  const buffer = Buffer.allocUnsafe(Math.min(readBytes, size + 1))
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length)
    if (bytesRead === 0) return hash.digest('hex')
    hash.update(buffer.subarray(0, bytesRead))
  }
}

/** All extended attributes of a tree, with one process. */
async function readXattrs(root: string, signal: AbortSignal | undefined): Promise<Map<string, string>> {
  const flags = [
    '--dump',
    '--match=-',
    '--encoding=hex',
    '--recursive',
    '--physical',
    '--no-dereference',
    '--absolute-names',
  ]
  const { stdout } = await run('getfattr', [...flags, '--', root], { ...(signal && { signal }) })
  const byPath = new Map<string, string>()
  for (const record of stdout.toString('latin1').split('\n\n')) {
    const [heading, ...attributes] = record.split('\n').filter(Boolean)
    if (heading === undefined) continue
    const path = unquote(heading.slice('# file: '.length))
    const prefix = Buffer.from(root).toString('latin1')
    if (!path.startsWith(prefix)) throw new P2pfsError('invalid', `getfattr: unexpected line ${heading}`)
    byPath.set(path.slice(prefix.length).replace(/^\/+/, ''), attributes.sort().join('\n'))
  }
  return byPath
}

/** Undoes getfattr's quoting: backslash and three octal digits. */
function unquote(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)))
}

function absolute(root: string, path: string): Buffer {
  return path === '' ? Buffer.from(root) : Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, 'latin1')])
}
