import { createHash } from 'node:crypto'
import { writeTar, type TarEntry } from '../../test/support/tar-writer.ts'

/**
 * Times that a tar may have and a filesystem must keep: one nanosecond after the first second of the epoch, and a
 * moment of 2024.
 */
const early = { seconds: 1, nanoseconds: 1 }
const late = { seconds: 1_719_792_000, nanoseconds: 123_456_789 }

/** `cap_net_bind_service=ep`, as struct vfs_cap_data revision 2 of linux/capability.h. */
const capability = '\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'

/** The number of files in a directory that spans many blocks. */
const manyFiles = 1500

/** A layer with everything that a file can be: the worst kinds, owners, attributes and names of real images. */
export function oddLowerLayer(): Buffer {
  const directory = (path: string, more: Partial<TarEntry> = {}): TarEntry => ({
    path,
    type: 'directory',
    mtime: late,
    ...more,
  })
  const file = (path: string, more: Partial<TarEntry> = {}): TarEntry => ({
    path,
    type: 'file',
    mtime: late,
    content: noise(path, 700),
    ...more,
  })
  const longName = 'n'.repeat(255)
  return writeTar([
    directory('odd/', { mode: 0o1777, uid: 1234, gid: 4321, mtime: early, xattrs: { 'user.directory': 'yes' } }),
    file('odd/empty', { content: Buffer.alloc(0) }),
    file('odd/one', { content: Buffer.from('1') }),
    file('odd/page', { content: noise('page', 4096) }),
    file('odd/page-and-one', { content: noise('page and one', 4097) }),
    file('odd/big', { content: noise('big', 3_500_001) }),
    file('odd/zeros', { content: Buffer.alloc(1 << 20) }),
    file('odd/setuid', { mode: 0o4755 }),
    file('odd/setgid', { mode: 0o2755, uid: 7, gid: 8 }),
    file('odd/nobody', { mode: 0, uid: 4_000_000_000, gid: 3_999_999_999, mtime: early }),
    file('odd/capability', { mode: 0o755, xattrs: { 'security.capability': capability } }),
    file('odd/attributes', {
      xattrs: { 'user.binary': '\x00\xff\n=\\', 'user.long': 'v'.repeat(1500), 'trusted.lab': 'trusted' },
    }),
    file('odd/caf\xe9 is latin-1'),
    file('odd/snow\xe2\x98\x83man'),
    file('odd/new\nline and \\ and "quotes" \x01'),
    file(`odd/${longName}`),
    directory(`odd/${'d'.repeat(120)}/`),
    file(`odd/${'d'.repeat(120)}/${longName}`),
    { path: 'odd/null', type: 'character', device: { major: 1, minor: 3 }, mode: 0o666, mtime: late },
    { path: 'odd/disk', type: 'block', device: { major: 259, minor: 300 }, mode: 0o660, gid: 6, mtime: late },
    { path: 'odd/fifo', type: 'fifo', mode: 0o600, mtime: late },
    { path: 'odd/link', type: 'symlink', linkTarget: 'nowhere/at all', mode: 0o777, uid: 5, gid: 6, mtime: late },
    { path: 'odd/link-59', type: 'symlink', linkTarget: 'x'.repeat(59), mode: 0o777, mtime: late },
    { path: 'odd/link-60', type: 'symlink', linkTarget: 'x'.repeat(60), mode: 0o777, mtime: late },
    { path: 'odd/link-long', type: 'symlink', linkTarget: `/${'t'.repeat(3000)}`, mode: 0o777, mtime: late },
    file('odd/hard-1', { content: noise('hard', 5000), xattrs: { 'user.hard': 'shared' } }),
    { path: 'odd/hard-2', type: 'hardlink', linkTarget: 'odd/hard-1', mtime: late },
    { path: 'odd/hard-3', type: 'hardlink', linkTarget: 'odd/hard-2', mtime: late },
    file('odd/sparse', {
      sparse: {
        sizeBytes: 5 << 20,
        pieces: [
          { offset: 0, bytes: noise('head', 4096) },
          { offset: 1_000_448, bytes: noise('middle', 70_000) },
        ],
      },
    }),
    directory('odd/many/'),
    ...Array.from({ length: manyFiles }, (_, i) =>
      file(`odd/many/file number ${i}`, { content: noise(`many ${i}`, i % 97) }),
    ),
    directory('odd/hidden/'),
    file('odd/hidden/gone'),
    directory('odd/hidden/gone-too/'),
    file('odd/hidden/gone-too/deep'),
    directory('odd/tree-removed/'),
    file('odd/tree-removed/file'),
    file('odd/removed'),
    file('odd/replaced', { content: noise('before', 9000) }),
    file('odd/becomes-directory'),
    directory('odd/becomes-file/'),
    file('odd/becomes-file/inner'),
    file('odd/mode-only', { content: noise('mode', 10_000) }),
  ])
}

/**
 * A layer over {@link oddLowerLayer} that removes, hides and replaces files.
 *
 * @param removed further paths of lower layers to remove
 */
export function oddUpperLayer(removed: readonly string[] = []): Buffer {
  const later = { seconds: late.seconds + 3600, nanoseconds: 5 }
  const whiteout = (path: string): TarEntry => ({ path, type: 'file', mode: 0, mtime: later, content: Buffer.alloc(0) })
  return writeTar([
    {
      path: 'odd/',
      type: 'directory',
      mode: 0o755,
      uid: 1,
      gid: 2,
      mtime: later,
      xattrs: { 'user.directory': 'again' },
    },
    whiteout('odd/.wh.removed'),
    whiteout('odd/.wh.tree-removed'),
    { path: 'odd/hidden/', type: 'directory', mode: 0o750, mtime: later },
    whiteout('odd/hidden/.wh..wh..opq'),
    { path: 'odd/hidden/new', type: 'file', mtime: later, content: noise('new', 123) },
    { path: 'odd/replaced', type: 'file', mtime: later, content: noise('after', 100) },
    whiteout('odd/.wh.becomes-directory'),
    { path: 'odd/becomes-directory/', type: 'directory', mtime: later },
    { path: 'odd/becomes-directory/inner', type: 'file', mtime: later, content: noise('inner', 10) },
    { path: 'odd/becomes-file', type: 'file', mtime: later, content: noise('file', 10) },
    { path: 'odd/mode-only', type: 'file', mode: 0o700, mtime: later, content: noise('mode', 10_000) },
    { path: 'odd/hard-4', type: 'hardlink', linkTarget: 'odd/hard-1', mtime: late },
    ...removed.map((path) => whiteout(path.replace(/[^/]*$/, '.wh.$&'))),
  ])
}

/** Bytes that do not compress; the same seed gives the same bytes. */
function noise(seed: string, lengthBytes: number): Buffer {
  const pieces: Buffer[] = []
  for (let i = 0; i * 32 < lengthBytes; i++) pieces.push(createHash('sha256').update(`${seed} ${i}`).digest())
  return Buffer.concat(pieces).subarray(0, lengthBytes)
}
