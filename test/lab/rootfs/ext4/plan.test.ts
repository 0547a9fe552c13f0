import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, lstatSync, openSync, readFileSync, readdirSync, readlinkSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { planExt4 } from '../../../../node/rootfs/ext4/plan.ts'
import { createRandom } from '../../../support/random.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'
import { check, directory, inode, seed, treeOf, withMount, writeImage, type ModelInode } from './ext4-image.ts'

const block = 4096

/** A file whose content is `bytes`, from `segmentOffset` of a layer. */
const file = (bytes: Uint8Array, layer: number, segmentOffset: number, more: Partial<ModelInode> = {}): ModelInode =>
  inode('file', {
    sizeBytes: bytes.length,
    layer,
    extents: bytes.length === 0 ? [] : [{ fileOffset: 0, lengthBytes: bytes.length, segmentOffset }],
    ...more,
  })

function assertClean(path: string): void {
  const { status, output } = check(path)
  assert.equal(status, 0, output)
  assert.match(output, /^Pass 1: .*\nPass 2: .*\nPass 3: .*\nPass 4: .*\nPass 5: .*\n\S+: \d+\/\d+ files .*\n$/, output)
}

test('an empty root is a filesystem', (t) => {
  const path = join(temporaryDirectory(t), 'image')
  writeImage(path, directory({}, { mode: 0o1777 }), [])
  assertClean(path)
  withMount(path, (at) => {
    assert.deepEqual(readdirSync(at), [])
    assert.equal(lstatSync(at).mode, 0o041777)
  })
})

test('every type, mode, id, time, link and attribute is as in the tree', (t) => {
  const path = join(temporaryDirectory(t), 'image')
  const content = createRandom(3).bytes(10_000)
  const linked = file(content, 1, 8192, {
    mode: 0o4755,
    uid: 2 ** 32 - 2,
    gid: 70_000,
    mtime: { seconds: -86_400, nanoseconds: 5 },
  })
  const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')
  const acl = Buffer.concat([
    Buffer.from([2, 0, 0, 0]),
    ...[
      [1, 7, -1],
      [2, 5, 1000],
      [4, 5, -1],
      [16, 5, -1],
      [32, 0, -1],
    ].map(([tag, perm, id]) => {
      const entry = Buffer.alloc(8)
      entry.writeUInt16LE(tag!, 0)
      entry.writeUInt16LE(perm!, 2)
      entry.writeInt32LE(id!, 4)
      return entry
    }),
  ])
  const longName = 'n'.repeat(255)
  const tree = directory({
    file: linked,
    again: linked,
    empty: file(Buffer.alloc(0), 0, 0, { mtime: { seconds: 2 ** 31 + 5, nanoseconds: 999_999_999 } }),
    far: file(Buffer.alloc(0), 0, 0, { mtime: { seconds: 15_032_385_534, nanoseconds: 1 } }),
    short: inode('symlink', { mode: 0o777, linkTarget: 's'.repeat(59) }),
    long: inode('symlink', { mode: 0o777, linkTarget: 'l'.repeat(60) }),
    longest: inode('symlink', { mode: 0o777, linkTarget: 'x/'.repeat(2047) + 'x' }),
    null: inode('character', { mode: 0o666, device: { major: 1, minor: 3 } }),
    disk: inode('block', { mode: 0o660, gid: 6, device: { major: 4000, minor: 1_000_000 } }),
    pipe: inode('fifo'),
    [longName]: inode('fifo'),
    'caf\xe9': inode('fifo'),
    attributes: inode('file', {
      xattrs: [
        { name: 'security.capability', value: capability },
        { name: 'user.big', value: Buffer.alloc(2000, 'b') },
        { name: 'user.empty', value: Buffer.alloc(0) },
        { name: 'user.small', value: Buffer.from('v') },
        { name: 'trusted.t', value: Buffer.alloc(33, 't') },
        { name: 'system.posix_acl_access', value: acl },
      ],
    }),
    deep: directory({ er: directory({ est: inode('file') }, { mode: 0o2750 }) }),
  })
  writeImage(path, tree, [4096, 8192 + 12_288, 4096], [{ layer: 1, offset: 8192, bytes: content }])
  assertClean(path)
  withMount(path, (at) => {
    const stat = (name: string) => lstatSync(join(at, name), { bigint: true })
    assert.deepEqual(readFileSync(join(at, 'file')), content)
    const found = stat('file')
    assert.deepEqual(
      [found.mode, found.uid, found.gid, found.nlink, found.size],
      [0o104755n, 2n ** 32n - 2n, 70_000n, 2n, 10_000n],
    )
    assert.equal(found.mtimeNs, -86_400n * 10n ** 9n + 5n)
    assert.equal(stat('again').ino, found.ino)
    assert.equal(stat('empty').mtimeNs, (2n ** 31n + 5n) * 10n ** 9n + 999_999_999n)
    assert.equal(stat('far').mtimeNs, 15_032_385_534n * 10n ** 9n + 1n)
    assert.equal(readlinkSync(join(at, 'short')), 's'.repeat(59))
    assert.equal(readlinkSync(join(at, 'long')), 'l'.repeat(60))
    assert.equal(readlinkSync(join(at, 'longest')).length, 4095)
    assert.equal(stat('null').rdev, 0x103n)
    const device = execFileSync('stat', ['-c', '%F %t %T', join(at, 'disk')], { encoding: 'utf8' })
    assert.equal(device, `block special file ${(4000).toString(16)} ${(1_000_000).toString(16)}\n`)
    assert.equal(stat('pipe').isFIFO(), true)
    const names = readdirSync(at, { encoding: 'latin1' })
    assert.ok(names.includes(longName) && names.includes('caf\xe9'))
    assert.equal(stat('deep').nlink, 3n)
    assert.equal(stat('deep/er').mode, 0o042750n)
    const attributes = execFileSync(
      'getfattr',
      ['-d', '-m', '-', '-e', 'hex', '--absolute-names', join(at, 'attributes')],
      { encoding: 'utf8' },
    )
    assert.deepEqual(
      attributes.trim().split('\n').slice(1).toSorted(),
      [
        `security.capability=0x${capability.toString('hex')}`,
        `system.posix_acl_access=0x${acl.toString('hex')}`,
        `trusted.t=0x${Buffer.alloc(33, 't').toString('hex')}`,
        `user.big=0x${Buffer.alloc(2000, 'b').toString('hex')}`,
        'user.empty=""',
        'user.small=0x76',
      ]
        .map((line) => line.replace('=""', '=0x'))
        .toSorted(),
    )
  })
})

for (const [name, count, type] of [
  ['100,000 files', 100_000, 'file'],
  ['70,000 directories', 70_000, 'directory'],
  ['300 files', 300, 'file'],
] as const) {
  test(`${name} in one directory can all be found`, (t) => {
    const path = join(temporaryDirectory(t), 'image')
    const many = new Map(
      Array.from({ length: count }, (_, i) => [
        `entry-${i}-${'x'.repeat(i % 40)}`,
        type === 'file' ? inode('file') : directory({}),
      ]),
    )
    writeImage(path, directory({ many: directory(many) }), [])
    assertClean(path)
    withMount(path, (at) => {
      assert.equal(readdirSync(join(at, 'many')).length, count)
      const keys = [...many.keys()]
      for (let i = 0; i < count; i += 97) assert.ok(lstatSync(join(at, 'many', keys[i]!)).ino > 10)
      assert.equal(lstatSync(join(at, 'many')).nlink, type === 'file' ? 2 : count + 2 >= 65_000 ? 1 : count + 2)
    })
  })
}

test('large, sparse and scattered files have their bytes', (t) => {
  const path = join(temporaryDirectory(t), 'image')
  const segment = 20 * 2 ** 30
  const mark = (n: number): Buffer => Buffer.alloc(block, n)
  const huge = inode('file', {
    sizeBytes: 5 * 2 ** 30 + 1,
    extents: [{ fileOffset: 0, lengthBytes: 5 * 2 ** 30 + 1, segmentOffset: 0 }],
  })
  const sparse = inode('file', {
    sizeBytes: 2 ** 40,
    extents: [{ fileOffset: 2 ** 39, lengthBytes: block, segmentOffset: 6 * 2 ** 30 }],
  })
  // Every second block of the segment, backwards: each is an extent, and the tree is two levels deep.
  const scattered = inode('file', {
    sizeBytes: 2000 * block,
    layer: 1,
    extents: Array.from({ length: 2000 }, (_, i) => ({
      fileOffset: i * block,
      lengthBytes: block,
      segmentOffset: (3998 - 2 * i) * block,
    })),
  })
  writeImage(
    path,
    directory({ huge, sparse, scattered }),
    [segment, 4000 * block],
    [
      { layer: 0, offset: 5 * 2 ** 30 - block, bytes: mark(1) },
      { layer: 0, offset: 6 * 2 ** 30, bytes: mark(2) },
      { layer: 1, offset: (3998 - 2 * 1500) * block, bytes: mark(3) },
    ],
  )
  assertClean(path)
  withMount(path, (at) => {
    const byteAt = (name: string, offset: number): number => {
      const fd = openSync(join(at, name), 'r')
      const bytes = Buffer.alloc(1)
      readSync(fd, bytes, 0, 1, offset)
      closeSync(fd)
      return bytes[0]!
    }
    assert.equal(lstatSync(join(at, 'huge')).size, 5 * 2 ** 30 + 1)
    assert.equal(byteAt('huge', 5 * 2 ** 30 - 1), 1)
    assert.equal(byteAt('huge', 5 * 2 ** 30), 0)
    assert.equal(byteAt('sparse', 2 ** 39 + 5), 2)
    assert.equal(byteAt('sparse', 2 ** 38), 0)
    assert.equal(byteAt('scattered', 1500 * block), 3)
    assert.equal(byteAt('scattered', 1501 * block), 0)
  })
})

test('random trees are clean, and have their bytes', (t) => {
  const directoryOfTest = temporaryDirectory(t)
  for (let round = 0; round < 15; round++) {
    const random = createRandom(round)
    const layers = [0, 0, 0]
    const segment: { layer: number; offset: number; bytes: Uint8Array }[] = []
    const expected = new Map<string, string>()
    const files: ModelInode[] = []
    const make = (path: string, depth: number): ModelInode => {
      const children = new Map<string, ModelInode>()
      for (let i = random.below(depth === 0 ? 60 : 25); i > 0; i--) {
        const name = `${i}-${'y'.repeat(random.below(120))}`
        const below = `${path}/${name}`
        const kind = random.below(10)
        if (kind < 3 && depth < 4) children.set(name, make(below, depth + 1))
        else if (kind === 3)
          children.set(name, inode('symlink', { mode: 0o777, linkTarget: 't'.repeat(1 + random.below(200)) }))
        else if (kind === 4 && files.length > 0) {
          const at = random.below(files.length)
          children.set(name, files[at]!)
        } else {
          const bytes = random.bytes(random.below(4) === 0 ? random.below(40_000) : random.below(5000))
          const layer = random.below(3)
          const node = file(bytes, layer, layers[layer]!, {
            xattrs: kind === 5 ? [{ name: 'user.x', value: random.bytes(random.below(300)) }] : [],
          })
          segment.push({ layer, offset: layers[layer]!, bytes })
          // Blocks between them stand for content that an upper layer hides.
          layers[layer]! += Math.ceil(bytes.length / block) * block + random.below(3) * block
          files.push(node)
          children.set(name, node)
          expected.set(below, createHash('sha256').update(bytes).digest('hex'))
        }
      }
      return directory(children)
    }
    const path = join(directoryOfTest, `image-${round}`)
    writeImage(path, make('', 0), layers, segment)
    assertClean(path)
    withMount(path, (at) => {
      for (const [name, digest] of expected)
        assert.equal(
          createHash('sha256')
            .update(readFileSync(at + name))
            .digest('hex'),
          digest,
          `seed ${round}: ${name}`,
        )
    })
  }
})

test('entries that ext4 cannot hold are refused, naming the path', () => {
  const refuses = (node: ModelInode, pattern: RegExp): void =>
    assert.throws(
      () => [...planExt4(treeOf(directory({ it: node })), [], seed).pieces()],
      (error) => isP2pfsError(error, 'unsupported') && pattern.test(error.message),
    )
  refuses(inode('file', { xattrs: [{ name: 'user.huge', value: Buffer.alloc(5000) }] }), /\/it: .*5\d\d\d bytes/)
  refuses(inode('file', { xattrs: [{ name: 'os2.name', value: Buffer.alloc(5) }] }), /\/it: .*os2\.name/)
  refuses(inode('character', { device: { major: 5000, minor: 0 } }), /\/it: device number 5000:0/)
})

test('the same tree gives the same bytes, in this version of the format', () => {
  const tree = treeOf(directory({ a: inode('file'), b: directory({ c: inode('symlink', { linkTarget: 'x' }) }) }))
  const hash = createHash('sha256')
  for (const piece of planExt4(tree, [8192], seed).pieces()) hash.update(piece)
  assert.equal(hash.digest('hex'), 'b056d91693641f51e70550581acfedbc67fc084e2e6c09962d3f3a79ca06c138')
})
