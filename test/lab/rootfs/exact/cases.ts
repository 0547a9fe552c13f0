import { createRandom } from '../../../support/random.ts'
import type { TarEntry } from '../../../support/tar-writer.ts'
import { aclBytes, type AclEntry } from './posix-acl-bytes.ts'

const late = { seconds: 1_719_792_000, nanoseconds: 123_456_789 }
const random = createRandom(1)

function file(path: string, more: Partial<TarEntry> = {}): TarEntry {
  return { path, type: 'file', mtime: late, content: Buffer.from(`content of ${path}`), ...more }
}
function directory(path: string, more: Partial<TarEntry> = {}): TarEntry {
  return { path, type: 'directory', mtime: late, ...more }
}
function symlink(path: string, linkTarget: string, more: Partial<TarEntry> = {}): TarEntry {
  return { path, type: 'symlink', linkTarget, mtime: late, ...more }
}
function hardlink(path: string, linkTarget: string): TarEntry {
  return { path, type: 'hardlink', linkTarget }
}
/** An entry at a path that includes its marks. */
function mark(path: string): TarEntry {
  return { path, type: 'file', content: Buffer.alloc(0) }
}
function device(path: string, type: 'character' | 'block', major: number, minor: number): TarEntry {
  return { path, type, device: { major, minor }, mode: 0o660, mtime: late }
}
function acl(path: string, entries: readonly AclEntry[], more: Partial<TarEntry> = {}): TarEntry {
  return file(path, { ...more, xattrs: { 'system.posix_acl_access': aclBytes(entries) } })
}

const pieces = [
  { offset: 0, bytes: random.bytes(100) },
  { offset: 4096 * 3 + 7, bytes: random.bytes(5000) },
  { offset: 100_000, bytes: random.bytes(512) },
]
const sparse = { sizeBytes: 300_001, pieces }
const deep = Array.from({ length: 30 }, (_, i) => `directory-${i}`).join('/')
const plain = { mtime: { seconds: 1_700_000_000, nanoseconds: 0 } }
const minimal: AclEntry[] = [
  { tag: 'user', permissions: 6 },
  { tag: 'group', permissions: 4 },
  { tag: 'other', permissions: 0 },
]
const extended: AclEntry[] = [
  { tag: 'user', permissions: 7 },
  { tag: 'namedUser', permissions: 6, id: 1000 },
  { tag: 'namedUser', permissions: 2, id: 3_000_000_000 },
  { tag: 'group', permissions: 5 },
  { tag: 'namedGroup', permissions: 1, id: 7 },
  { tag: 'mask', permissions: 3 },
  { tag: 'other', permissions: 1 },
]

/** 100,000 files in one directory, which is a hash tree of two levels on ext4, and a few changes above. */
export function manyFiles(): TarEntry[][] {
  const lower = Array.from({ length: 100_000 }, (_, i) =>
    file(`many/file ${i}`, { content: Buffer.alloc(i % 500 === 0 ? 10 : 0, i) }),
  )
  return [
    [directory('many'), ...lower],
    [mark('many/.wh.file 77777'), file('many/file 5', { mode: 0o600 })],
  ]
}

/** Images by their peculiarity: the entries of each layer, lowest first. Every unpacker takes them. */
export const cases: Readonly<Record<string, readonly (readonly TarEntry[])[]>> = {
  'ustar, with and without prefix': [
    [
      file('short', { encoding: 'ustar', ...plain }),
      file(`${'p'.repeat(99)}/${'q'.repeat(50)}/${'n'.repeat(99)}`, { encoding: 'ustar', ...plain }),
      directory('directory', { encoding: 'ustar', ...plain }),
    ],
  ],
  'PAX paths, links, ids and times': [
    [
      file(`${deep}/${'n'.repeat(200)}`, { uid: 3_000_000, gid: 4_000_000_000 }),
      symlink('link', `/${deep}/${'n'.repeat(200)}`),
      hardlink('hard', `${deep}/${'n'.repeat(200)}`),
    ],
  ],
  'GNU long names, links and base-256': [
    [
      file(`${deep}/${'n'.repeat(255)}`, { encoding: 'gnu', ...plain, uid: 4_294_967_294, gid: 3_000_000_000 }),
      symlink('link', 't'.repeat(300), { encoding: 'gnu', ...plain }),
      { ...hardlink('hard', `${deep}/${'n'.repeat(255)}`), encoding: 'gnu' },
      file('early', { encoding: 'gnu', mtime: { seconds: -5, nanoseconds: 0 } }),
    ],
  ],
  'sparse, PAX 0.0': [[file('sparse', { sparse: { ...sparse, format: '0.0' } })]],
  'sparse, PAX 0.1': [[file('sparse', { sparse: { ...sparse, format: '0.1' } })]],
  'sparse, PAX 1.0': [[file('sparse', { sparse: { ...sparse, format: '1.0' } })]],
  'sparse, nothing but a hole, and no hole': [
    [
      file('hole', { sparse: { sizeBytes: 1_000_000, pieces: [] } }),
      file('full', { sparse: { sizeBytes: 9000, pieces: [{ offset: 0, bytes: random.bytes(9000) }] } }),
      file('end', { sparse: { sizeBytes: 50_001, pieces: [{ offset: 50_000, bytes: random.bytes(1) }] } }),
    ],
  ],
  'sparse, with pieces in one block': [
    [
      file('sparse', {
        sparse: {
          sizeBytes: 20_000,
          pieces: Array.from({ length: 60 }, (_, i) => ({ offset: i * 300, bytes: random.bytes(1 + i) })),
        },
      }),
    ],
  ],
  'hard links across layers': [
    [file('a'), directory('d')],
    [hardlink('b', 'a'), hardlink('d/c', 'b')],
    [hardlink('e', 'd/c')],
  ],
  'hard link to a file that the layer replaces': [
    [file('a')],
    [hardlink('b', 'a'), file('a', { content: Buffer.from('new') })],
    [hardlink('c', 'a')],
  ],
  'hard link to a file that the layer deletes, before and after': [
    [file('a'), file('b')],
    [hardlink('a2', 'a'), mark('.wh.a'), mark('.wh.b')],
  ],
  'hard link to a file of the layer, whose lower name is deleted': [
    [file('a'), file('x')],
    [file('a', { content: Buffer.from('new') }), hardlink('x', 'a'), mark('.wh.a'), mark('.wh.x')],
  ],
  'hard link over a file, over a link to the same, and over a directory': [
    [file('a'), file('b'), directory('d'), file('d/x')],
    [hardlink('b', 'a'), hardlink('b', 'a'), hardlink('d', 'a')],
  ],
  'hard link to a link, and to a hard link': [
    [
      symlink('s', 'nowhere'),
      hardlink('s2', 's'),
      hardlink('s3', 's2'),
      file('f'),
      hardlink('f2', 'f'),
      hardlink('f3', 'f2'),
    ],
  ],
  'hard link through a link, absolute and dotted': [
    [
      directory('d'),
      symlink('s', '/d'),
      file('d/f'),
      hardlink('h1', 's/f'),
      hardlink('h2', '/d/f'),
      hardlink('h3', './d//f'),
    ],
  ],
  'entries twice in one layer': [
    [
      file('a', { content: Buffer.from('1') }),
      file('a', { content: Buffer.from('2'), mode: 0o600 }),
      symlink('b', 'x'),
      symlink('b', 'y'),
      directory('d', { mode: 0o700 }),
      file('d/x'),
      directory('d', { mode: 0o711 }),
      device('e', 'block', 1, 2),
      file('e'),
    ],
  ],
  'paths with dots, slashes, absolute, up and down': [
    [
      file('./a'),
      file('/b'),
      file('.//c//d'),
      directory('./e/'),
      file('/./e/./f'),
      file('e/../g'),
      directory('.', { mode: 0o711, uid: 5 }),
      hardlink('h', 'e/../a'),
    ],
  ],
  'parents that are missing': [[file('a/b/c/d'), symlink('x/y', 'z'), hardlink('l/m', 'a/b/c/d')], [file('a/new/d')]],
  'parents that are missing inherit group and ACL': [
    [
      directory('s', { mode: 0o2755, gid: 77 }),
      file('s/t/u/f'),
      directory('d', { xattrs: { 'system.posix_acl_default': aclBytes(extended) } }),
      file('d/e/f/g'),
      directory('m', { xattrs: { 'system.posix_acl_default': aclBytes(minimal) }, mode: 0o2700, gid: 9 }),
      file('m/n/o'),
    ],
  ],
  'the root described, and not': [
    [directory('/', { mode: 0o1750, uid: 3, gid: 4, xattrs: { 'user.root': 'yes' } })],
    [file('a')],
  ],
  'a directory becomes a file and a directory again': [
    [directory('d', { mode: 0o700 }), file('d/x')],
    [file('d')],
    [directory('d'), file('d/y')],
  ],
  'a directory becomes a link and a directory again, with children through it': [
    [directory('d'), file('d/x'), directory('t')],
    [symlink('d', 't'), file('d/y')],
    [directory('d'), file('d/z')],
  ],
  'link to directory, replaced by directory': [
    [directory('usr/lib'), symlink('lib', 'usr/lib'), file('lib/a')],
    [directory('lib'), file('lib/b')],
  ],
  'links on the path: absolute, upwards out of the root, dangling, chained': [
    [
      directory('d/e'),
      symlink('a', '/d'),
      symlink('u', '../../../d'),
      symlink('n', 'not/there'),
      symlink('c', 'a/e'),
      file('a/1'),
      file('u/2'),
      file('n/3'),
      file('c/4'),
      symlink('dots', 'none/../d'),
      file('dots/5'),
    ],
  ],
  "link on the path is not the layer's own": [
    [directory('d'), symlink('s', 'd'), file('d/x')],
    [file('s/y'), mark('.wh.s'), mark('d/.wh.x')],
  ],
  'whiteout of file, directory, link': [
    [file('f'), directory('d'), file('d/x'), symlink('s', 'd'), file('stay')],
    [mark('.wh.f'), mark('.wh.d'), mark('.wh.s')],
  ],
  'whiteout before the entry': [
    [directory('d'), file('d/x'), file('f')],
    [mark('.wh.d'), directory('d'), file('d/y'), mark('.wh.f'), file('f')],
  ],
  'whiteout after the entry': [
    [directory('d'), file('d/x'), file('f')],
    [directory('d'), file('d/y'), mark('.wh.d'), file('f'), mark('.wh.f')],
  ],
  'whiteout of a directory with a child of the layer deep in it': [
    [directory('a/b'), file('a/b/x'), file('a/y')],
    [file('a/b/z'), mark('.wh.a')],
  ],
  'whiteout through a link, in a file, with content': [
    [directory('d'), symlink('s', 'd'), file('d/x'), file('f')],
    [mark('s/.wh.x'), mark('f/.wh.x'), { ...mark('.wh.none'), content: Buffer.from('some') }],
  ],
  'whiteout of nothing': [[file('a')], [mark('.wh.b'), mark('x/y/.wh.z')]],
  'whiteout and hard link: names, not inodes': [
    [file('a'), file('b')],
    [hardlink('c', 'a'), mark('.wh.a'), hardlink('b', 'c'), mark('.wh.b')],
  ],
  'opaque first, last and between': [
    [directory('d'), file('d/1'), directory('d/s'), file('d/s/2')],
    [mark('d/.wh..wh..opq'), file('d/3')],
    [file('d/4'), mark('d/.wh..wh..opq')],
    [file('d/5'), mark('d/.wh..wh..opq'), file('d/6')],
  ],
  'opaque root': [
    [file('a'), directory('d'), file('d/x')],
    [file('b'), mark('.wh..wh..opq'), file('d/y')],
  ],
  'opaque of nothing, of a file, through a link': [
    [file('f'), directory('d'), file('d/x'), symlink('s', 'd')],
    [mark('n/.wh..wh..opq'), mark('f/.wh..wh..opq'), mark('s/.wh..wh..opq')],
  ],
  'opaque over directories that the layer goes through': [
    [directory('d/s/t'), file('d/s/t/x'), file('d/s/y'), file('d/z')],
    [file('d/s/t/new'), mark('d/.wh..wh..opq')],
  ],
  'marks of aufs': [[file('a')], [mark('.wh..wh.plnk'), mark('.wh..wh.aufs')]],
  'attributes by namespace': [
    [
      file('f', {
        xattrs: {
          'user.a': '1',
          'trusted.b': '2',
          'security.other': '3',
          'security.selinux': 'no',
          'trusted.overlay.opaque': 'y',
          'system.none': 'no',
          'nowhere.x': 'no',
          noprefix: 'no',
          'user.empty': '',
        },
      }),
      symlink('s', 'f', { xattrs: { 'trusted.link': 'yes', 'security.link': 'too' } }),
      { path: 'p', type: 'fifo', xattrs: { 'trusted.fifo': 'yes' } },
    ],
  ],
  'attributes, binary, large, many': [
    [
      file('f', { xattrs: { 'user.binary': '\0\xff\n=\\', 'user.large': 'v'.repeat(3500) } }),
      file('g', {
        xattrs: Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`user.attribute-${i}`, `value ${i}`])),
      }),
      file('h', { xattrs: { [`user.${'n'.repeat(250)}`]: 'long name' } }),
    ],
  ],
  'attributes of a directory described again': [
    [directory('d', { xattrs: { 'user.a': '1', 'trusted.b': '2' } })],
    [directory('d', { xattrs: { 'user.c': '3' } })],
  ],
  'capabilities of revisions 2 and 3': [
    [
      file('two', { xattrs: { 'security.capability': `\x01\0\0\x02\0\x04\0\0${'\0'.repeat(12)}` } }),
      file('three', { xattrs: { 'security.capability': `\x01\0\0\x03\0\x04\0\0${'\0'.repeat(12)}\xe8\x03\0\0` } }),
    ],
  ],
  'ACLs that are a mode, and change it': [
    [
      acl('same', minimal, { mode: 0o640 }),
      acl('other', minimal, { mode: 0o4777 }),
      directory('d', { mode: 0o777, xattrs: { 'system.posix_acl_default': aclBytes(minimal) } }),
    ],
  ],
  'ACLs with names and masks': [
    [
      acl('f', extended, { mode: 0o6644 }),
      acl('mask-only', [minimal[0]!, minimal[1]!, { tag: 'mask', permissions: 2 }, minimal[2]!]),
      directory('d', {
        xattrs: { 'system.posix_acl_access': aclBytes(extended), 'system.posix_acl_default': aclBytes(extended) },
      }),
      file('d/f', { mode: 0o604 }),
      directory('d/e', { mode: 0o1777 }),
    ],
  ],
  'ACLs without entries, of another version, of a link': [
    [
      acl('none', []),
      file('version', { xattrs: { 'system.posix_acl_access': `\x01\0\0\0${aclBytes(minimal).slice(4)}` } }),
      symlink('s', 'x', { xattrs: { 'system.posix_acl_access': aclBytes(extended) } }),
    ],
  ],
  'setuid, setgid, sticky': [
    [
      file('u', { mode: 0o4755, uid: 8, gid: 9 }),
      file('g', { mode: 0o2755, uid: 8, gid: 9 }),
      file('all', { mode: 0o7000 }),
      directory('t', { mode: 0o1777 }),
      directory('gd', { mode: 0o2770, gid: 5 }),
      file('gd/f'),
      directory('gd/e', { mode: 0o755 }),
      symlink('s', 'x', { mode: 0o4000 }),
    ],
  ],
  'device numbers': [
    [
      device('a', 'character', 0, 0),
      device('b', 'block', 255, 255),
      device('c', 'block', 256, 0),
      device('d', 'character', 4095, 1_048_575),
      device('e', 'character', 1, 256),
      { path: 'p', type: 'fifo', mode: 0o622 },
    ],
  ],
  ids: [
    [0, 65_535, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 2].map((id) =>
      file(`id-${id}`, { uid: id, gid: 2 ** 32 - 2 - id }),
    ),
  ],
  'ids that are negative, as some writers have nobody': [
    [-2, -3, -65_536, -(2 ** 31)].flatMap((id) =>
      (['gnu', 'pax'] as const).flatMap((encoding) => [
        file(`${encoding}${id}`, { ...plain, encoding, uid: id, gid: -2 }),
        directory(`${encoding}${id}-directory`, { ...plain, encoding, uid: -2, gid: id }),
        symlink(`${encoding}${id}-link`, 'x', { ...plain, encoding, uid: id, gid: id }),
      ]),
    ),
  ],
  'base-256 in every number': [
    [
      directory('directory', { ...plain, encoding: 'base256', mode: 0o1777, uid: 1000, gid: 70_000 }),
      file('file', { ...plain, encoding: 'base256', mode: 0o4751, content: random.bytes(5000) }),
      file('empty', {
        encoding: 'base256',
        mtime: { seconds: -1_000_000_000, nanoseconds: 0 },
        content: Buffer.alloc(0),
      }),
      file('next', { encoding: 'base256', mtime: { seconds: 9_000_000_000, nanoseconds: 0 }, uid: 2 ** 32 - 2 }),
      { ...device('device', 'block', 300, 70_000), ...plain, encoding: 'base256' },
      { ...hardlink('hard', 'file'), encoding: 'base256' },
    ],
  ],
  times: [
    [0, -1, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 9_000_000_000, -(2 ** 31) + 1].flatMap((seconds) =>
      [0, 1, 999_999_999].map((nanoseconds) =>
        file(`time${seconds}.${nanoseconds}`, { mtime: { seconds, nanoseconds } }),
      ),
    ),
  ],
  names: [
    [
      ...[
        'caf\xe9',
        'snow\xe2\x98\x83',
        'new\nline',
        'back\\slash',
        '"',
        ' ',
        '\x01',
        '\x7f\xff',
        '-rf',
        '...',
        '.wh',
        'x.wh.y',
        'n'.repeat(255),
      ].map((name) => file(name)),
      directory(`${'d'.repeat(255)}/${'e'.repeat(255)}`),
      file(`${'d'.repeat(255)}/${'e'.repeat(255)}/${'f'.repeat(255)}`),
    ],
  ],
  'link targets of any length': [
    [1, 58, 59, 60, 61, 255, 1000, 4095].map((length) => symlink(`link-${length}`, 'x'.repeat(length))),
  ],
  'files of all sizes around blocks': [
    [0, 1, 511, 512, 4095, 4096, 4097, 65_536, 1_048_575, 1_048_577, 3_000_000].map((size) =>
      file(`size-${size}`, { content: random.bytes(size) }),
    ),
  ],
  'the same content many times': [
    Array.from({ length: 20 }, (_, i) => file(`copy-${i}`, { content: pieces[1]!.bytes })),
  ],
  'layers without entries': [[], []],
  'stargz.index.json is a file': [
    [
      file('stargz.index.json', { content: Buffer.from('{"version":1}') }),
      file('.no.prefetch.landmark', { content: Buffer.from('\x0f') }),
    ],
  ],
  '127 layers': Array.from({ length: 127 }, (_, i) => [
    file(`file-${i}`),
    file('last', { content: Buffer.from(String(i)) }),
    hardlink(`link-${i}`, i === 0 ? 'file-0' : `link-${i - 1}`),
    ...(i % 3 === 2 ? [mark(`.wh.file-${i - 1}`)] : []),
    directory('d', { mode: 0o700 + (i % 8) }),
    file(`d/${i % 10}`, { mode: 0o600 }),
  ]),
}
