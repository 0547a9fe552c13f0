import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { writeTar, type TarEntry } from '../../../support/tar-writer.ts'
import { compareImages } from './compare-images.ts'
import { aclBytes } from './posix-acl-bytes.ts'

const file = (path: string, more: Partial<TarEntry> = {}): TarEntry => ({
  path,
  type: 'file',
  content: Buffer.from(path),
  ...more,
})
const link = (path: string, linkTarget: string): TarEntry => ({ path, type: 'hardlink', linkTarget })
const symlink = (path: string, linkTarget: string): TarEntry => ({ path, type: 'symlink', linkTarget })
const directory = (path: string, more: Partial<TarEntry> = {}): TarEntry => ({ path, type: 'directory', ...more })
const acl = (...tags: ('user' | 'group' | 'other' | 'namedUser')[]): string =>
  aclBytes(tags.map((tag) => ({ tag, permissions: 7 })))

/** Images that nobody can unpack: their layers, and our error. */
const bothRefuse: Record<string, [TarEntry[][], RegExp]> = {
  'hard link to nothing': [[[link('a', 'b')]], /"a": hard link to "b", which is not there/],
  'hard link to a later entry': [[[link('a', 'b'), file('b')]], /"a": hard link to "b", which is not there/],
  'hard link to a directory': [[[directory('d')], [link('a', 'd')]], /"a": hard link to "d", which is a directory/],
  'hard link to the root': [[[link('a', '/')]], /"a": hard link to "", which is a directory/],
  'hard link to itself': [[[file('a')], [link('a', 'a')]], /"a": hard link to "a", which is not there/],
  'hard link to the entry that it replaces': [
    [[file('d/a')], [link('d', 'd/a')]],
    /"d": hard link to "d\/a", which is not there/,
  ],
  'path through a file of the layer': [[[file('a'), file('a/b')]], /"a\/b": "a" on its path is no directory/],
  'loop of links on the path': [
    [[symlink('a', 'b'), symlink('b', 'a'), file('a/c')]],
    /"a\/c": too many symbolic links/,
  ],
  'link to the empty path': [[[symlink('a', '')]], /"a": link target of 0 bytes/],
  'link target of 4096 bytes': [[[symlink('a', 'x'.repeat(4096))]], /"a": link target of 4096 bytes/],
  'name of 256 bytes': [[[file('n'.repeat(256))]], /name of 256 bytes/],
  'root that is no directory': [[[file('.')]], /the root is not a directory/],
  'ACL that is malformed': [
    [[file('a', { xattrs: { 'system.posix_acl_access': acl('group', 'user', 'other') } })]],
    /POSIX ACL that the kernel refuses/,
  ],
  'ACL with names and no mask': [
    [[file('a', { xattrs: { 'system.posix_acl_access': acl('user', 'namedUser', 'group', 'other') } })]],
    /POSIX ACL that the kernel refuses/,
  ],
  'ACL that is cut short': [
    [[file('a', { xattrs: { 'system.posix_acl_access': acl('user', 'group', 'other').slice(0, -1) } })]],
    /POSIX ACL is cut short/,
  ],
  'default ACL of a file': [
    [[file('a', { xattrs: { 'system.posix_acl_default': acl('user', 'group', 'other') } })]],
    /default ACL, but not of a directory/,
  ],
  'malformed capability': [
    [[file('a', { xattrs: { 'security.capability': 'x'.repeat(20) } })]],
    /security.capability is malformed/,
  ],
  'attribute with a long name': [
    [[file('a', { xattrs: { [`user.${'n'.repeat(251)}`]: 'x' } })]],
    /extended attribute with a name of 256 bytes/,
  ],
}

/** Images whose paths umoci clips. */
const weRefuse: Record<string, TarEntry[]> = {
  'path that leaves the root': [file('../a')],
  'path that leaves the root in its midst': [file('a/../../b')],
  'hard link that leaves the root': [file('a'), link('b', '../a')],
}

/** Images that umoci refuses, and we accept: their layers, and the same image in a form that umoci accepts. */
const umociRefuses: Record<string, [TarEntry[][], TarEntry[][]]> = {
  'path through a file of a lower layer: a directory, as on overlayfs': [
    [[file('a')], [file('a/b')]],
    [[file('a')], [directory('a', { mode: 0o755 }), file('a/b')]],
  ],
  'user attributes of a link and a device: left out, as Docker does': [
    [
      [
        { ...symlink('s', 'x'), xattrs: { 'user.a': '1', 'trusted.b': '2' } },
        { path: 'p', type: 'fifo', xattrs: { 'user.a': '1' } },
      ],
    ],
    [
      [
        { ...symlink('s', 'x'), xattrs: { 'trusted.b': '2' } },
        { path: 'p', type: 'fifo' },
      ],
    ],
  ],
}

let failures: Map<string, string>

before(async () => {
  const image = (
    name: string,
    layers: readonly (readonly TarEntry[])[],
    forUmoci?: TarEntry[][],
  ): Parameters<typeof compareImages>[0][number] => {
    const tars = layers.map((entries) => writeTar(entries))
    return {
      name,
      layers: tars.map((tar) => ({ blob: tar, tar })),
      ...(forUmoci && { forUmoci: forUmoci.map((entries) => writeTar(entries)) }),
    }
  }
  failures = await compareImages([
    ...Object.values(bothRefuse).map(([layers], i) => image(`both-${i}`, layers)),
    ...Object.values(weRefuse).map((entries, i) => image(`we-${i}`, [entries])),
    ...Object.values(umociRefuses).map(([layers, equivalent], i) => image(`umoci-${i}`, layers, equivalent)),
    ...Object.values(umociRefuses).map(([layers], i) => image(`not-umoci-${i}`, layers)),
  ])
})

for (const [i, [name, [, pattern]]] of Object.entries(bothRefuse).entries()) {
  test(`${name}: refused by umoci, and by us naming the entry`, () => {
    assert.match(failures.get(`both-${i}`) ?? '', /^umoci: /m)
    assert.match(failures.get(`both-${i}`) ?? '', pattern)
  })
}
for (const [i, name] of Object.keys(weRefuse).entries()) {
  test(`${name}: refused by us`, () => assert.match(failures.get(`we-${i}`) ?? '', /^import: .*path leaves the image/))
}
for (const [i, name] of Object.keys(umociRefuses).entries()) {
  test(name, () => {
    assert.equal(failures.get(`umoci-${i}`), undefined)
    assert.match(failures.get(`not-umoci-${i}`) ?? '', /^umoci: /)
  })
}
