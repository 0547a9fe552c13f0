import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import type { EntryType, LayerEntry } from '../../../protocol/layer-entry.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { mergeLayers } from '../../../node/rootfs/merge.ts'

/**
 * `path` is a file, `path/` a directory, `path>target` a symlink, `path=target` a hard link, `-path` a whiteout,
 * `!path` an opaque marker.
 */
function entry(text: string, mode: number): LayerEntry {
  const [, mark = '', path = '', kind = '', target = ''] = /^([-!]?)([^>=]*?)(\/|>|=|)((?<=[>=]).*|)$/.exec(text) ?? []
  const types: Record<string, EntryType> = { '/': 'directory', '>': 'symlink', '=': 'hardlink', '': 'file' }
  const type = mark === '-' ? 'whiteout' : mark === '!' ? 'opaque' : types[kind]!
  return {
    path,
    type,
    mode,
    uid: 0,
    gid: 0,
    mtime: { seconds: 1, nanoseconds: 0 },
    xattrs: [],
    linkTarget: target,
    device: { major: 0, minor: 0 },
    sizeBytes: 0,
    extents: [],
  }
}

/** Merges layers. The entries of the first have mode 1, those of the second mode 2, and so on. */
function merge(...layers: string[][]): Record<string, string> {
  const indexes: LayerIndex[] = layers.map((entries, i) => ({
    diffId: digestOf(Buffer.from(String(i))),
    tarBytes: 0,
    chunks: new ChunkTable([], new Uint8Array()),
    entries: entries.map((text) => entry(text, i + 1)),
  }))
  const { inodes, entries, root } = mergeLayers(indexes)
  const found: Record<string, string> = {}
  const walk = (path: string, directory: number): void => {
    for (const entry of entries.of(directory)) {
      const child = entries.inodeOf(entry)
      const { type, linkTarget, mode } = inodes.get(child)
      const mark = { directory: '/', symlink: `>${linkTarget}`, file: '', character: 'c', block: 'b', fifo: 'p' }[type]
      const name = entries.nameOf(entry)
      found[`${path}${name}${mark}`] = mode.toString(8)
      if (type === 'directory') walk(`${path}${name}/`, child)
    }
  }
  walk('', root)
  return found
}

const cases: [string, string[][], Record<string, string>][] = [
  ['an upper file replaces a lower one', [['a'], ['a']], { a: '2' }],
  ['a directory keeps its children and takes new metadata', [['d/', 'd/x'], ['d/']], { 'd/': '2', 'd/x': '1' }],
  ['missing parents are made', [['a/b/c']], { 'a/': '755', 'a/b/': '755', 'a/b/c': '1' }],
  ['a whiteout hides the lower entry', [['a', 'b'], ['-a']], { b: '1' }],
  ['a whiteout of nothing does nothing', [['a'], ['-b', '-x/y']], { a: '1' }],
  [
    'a whiteout does not hide its own layer, before or after',
    [
      ['d/', 'd/x'],
      ['d/new', '-d'],
    ],
    { 'd/': '1', 'd/new': '2' },
  ],
  [
    'a whiteout that stands first does not hide its own layer',
    [
      ['d/', 'd/x'],
      ['-d', 'd/', 'd/new'],
    ],
    { 'd/': '2', 'd/new': '2' },
  ],
  [
    'an opaque directory hides what is below it in lower layers',
    [
      ['d/', 'd/x', 'd/s/', 'd/s/y'],
      ['d/', '!d', 'd/n'],
    ],
    { 'd/': '2', 'd/n': '2' },
  ],
  [
    'an opaque directory hides lower layers wherever its marker stands',
    [
      ['d/', 'd/x', 'd/s/', 'd/s/y'],
      ['d/n', 'd/s/z', '!d'],
    ],
    { 'd/': '1', 'd/n': '2', 'd/s/': '1', 'd/s/z': '2' },
  ],
  [
    'a directory becomes a file and a directory again',
    [['d/', 'd/x'], ['d'], ['d/', 'd/y']],
    { 'd/': '3', 'd/y': '3' },
  ],
  ['the last of two entries in a layer wins', [['a', 'a>b']], { 'a>b': '777' }],
  [
    'a path through a link follows it within the root',
    [
      ['usr/', 'usr/lib/', 'lib>/usr/lib', 'up>../../usr'],
      ['lib/x', 'up/y'],
    ],
    { 'usr/': '1', 'usr/lib/': '1', 'lib>/usr/lib': '777', 'up>../../usr': '777', 'usr/lib/x': '2', 'usr/y': '2' },
  ],
  ['a hard link is its target', [['a'], ['b=a']], { a: '1', b: '1' }],
]
for (const [name, layers, expected] of cases) {
  test(name, () => assert.deepEqual(merge(...layers), expected))
}

test('a hard link shares the inode, and keeps it when the target is replaced or deleted', () => {
  const layer = (diff: string, entries: LayerEntry[]): LayerIndex => ({
    diffId: digestOf(Buffer.from(diff)),
    tarBytes: 0,
    chunks: new ChunkTable([], new Uint8Array()),
    entries,
  })
  const tree = mergeLayers([
    layer('1', [entry('a', 1), entry('b=a', 1), entry('c=b', 1)]),
    layer('2', [entry('a', 2), entry('-b', 2)]),
  ])
  const modeOf = (name: string): number | undefined => {
    const entry = tree.entries.find(tree.root, name)
    return entry === undefined ? undefined : tree.inodes.get(tree.entries.inodeOf(entry)).mode
  }
  assert.deepEqual([modeOf('c'), modeOf('a'), modeOf('b')], [1, 2, undefined])
})

test('a hard link to nothing and a loop of links are refused, naming the entry', () => {
  const refuses = (entries: string[], pattern: RegExp): void =>
    assert.throws(
      () => merge(entries),
      (error) => isP2pfsError(error, 'invalid') && pattern.test(error.message),
    )
  refuses(['b=a'], /"b": hard link to "a", which is not there/)
  refuses(['a>b', 'b>a', 'a/x'], /"a\/x": too many symbolic links/)
})
