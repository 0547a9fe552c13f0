import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  closeSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { mapFile } from '../../../../node/rootfs/erofs/file-map.ts'
import { planErofs } from '../../../../node/rootfs/erofs/plan.ts'
import { SlotAllocator } from '../../../../node/rootfs/erofs/slot-allocator.ts'
import { createRandom } from '../../../support/random.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'
import { directory, inode, seed, treeOf, type ModelInode } from '../ext4/ext4-image.ts'

const block = 4096

/** Writes the image to a file with `data` in its one layer; fsck.erofs must have no complaints. */
function writeImage(path: string, root: ModelInode, data: Uint8Array = Buffer.alloc(0)): { metadataBytes: number } {
  const plan = planErofs(treeOf(root), [Math.ceil(data.length / block) * block], seed)
  const fd = openSync(path, 'w')
  let at = 0
  for (const piece of plan.pieces()) at += writeSync(fd, piece)
  assert.equal(at, plan.metadataBytes)
  ftruncateSync(fd, plan.sizeBytes)
  writeSync(fd, data, 0, data.length, plan.metadataBytes)
  closeSync(fd)
  const { status, stdout, stderr } = spawnSync('fsck.erofs', ['--extract', path], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assert.doesNotMatch(`${stdout}${stderr}`, /error|corrupt|bogus/i)
  return plan
}

function withMount(path: string, use: (at: string) => void): void {
  const at = `${path}.mnt`
  mkdirSync(at)
  execFileSync('mount', ['-t', 'erofs', '-o', 'ro,loop', path, at])
  try {
    use(at)
  } finally {
    execFileSync('umount', [at])
  }
}

function readAt(path: string, offset: number, length: number): Buffer {
  const fd = openSync(path, 'r')
  const bytes = Buffer.alloc(length)
  const count = readSync(fd, bytes, 0, length, offset)
  closeSync(fd)
  return bytes.subarray(0, count)
}

test('an empty root is a filesystem of one block', (t) => {
  const path = join(temporaryDirectory(t), 'image')
  assert.equal(writeImage(path, directory({}, { mode: 0o1777 })).metadataBytes, block)
  withMount(path, (at) => {
    assert.deepEqual(readdirSync(at), [])
    assert.equal(lstatSync(at).mode, 0o041777)
  })
})

test('names of all lengths are found in a directory of many blocks', (t) => {
  const path = join(temporaryDirectory(t), 'image')
  const random = createRandom(21)
  const names = new Set([
    '!before dots',
    '~after',
    'n'.repeat(255),
    ...Array.from({ length: 4000 }, (_, i) => `${'x'.repeat(random.below(60))}${i}`),
  ])
  const root = directory({ many: directory(new Map([...names].map((name, i) => [name, inode('file', { uid: i })]))) })
  writeImage(path, root)
  withMount(path, (at) => {
    assert.deepEqual(new Set(readdirSync(join(at, 'many'))), names)
    for (const [i, name] of [...names].entries()) assert.equal(lstatSync(join(at, 'many', name)).uid, i)
    assert.throws(() => lstatSync(join(at, 'many', 'not there')), { code: 'ENOENT' })
  })
})

test('directories and link targets of every size near a block are read, behind their inode or in a block', (t) => {
  const path = join(temporaryDirectory(t), 'image')
  const sizes = [1, 100, 3950, 3999, 4000, 4031, 4032, 4033, 4090, 4095]
  const links = new Map(
    sizes.map((size) => [`link ${size}`, inode('symlink', { mode: 0o777, linkTarget: 'l'.repeat(size) })]),
  )
  // Entries of 12 bytes and a name of 4: 12 + 1 and 12 + 2 for the dots.
  const folders = new Map(
    sizes.map((size) => [
      `folder ${size}`,
      directory(
        new Map(
          Array.from({ length: Math.floor((size - 27) / 16) }, (_, i) => [String(i).padStart(4, '0'), inode('file')]),
        ),
      ),
    ]),
  )
  writeImage(path, directory(new Map([...links, ...folders])))
  withMount(path, (at) => {
    for (const size of sizes) {
      assert.equal(readlinkSync(join(at, `link ${size}`)).length, size)
      assert.equal(readdirSync(join(at, `folder ${size}`)).length, Math.max(0, Math.floor((size - 27) / 16)))
    }
  })
})

test('attributes up to tens of kilobytes stand behind their inode', (t) => {
  const path = join(temporaryDirectory(t), 'image')
  const value = Buffer.from(createRandom(4).bytes(20_000))
  const more = {
    xattrs: [
      { name: 'trusted.t', value: Buffer.from('x') },
      { name: 'user.big', value },
    ],
  }
  writeImage(
    path,
    directory({
      file: inode('file', more),
      folder: directory({ a: inode('file'), b: inode('fifo') }, more),
      link: inode('symlink', { ...more, xattrs: [more.xattrs[0]!], linkTarget: 'x'.repeat(3000) }),
    }),
  )
  withMount(path, (at) => {
    for (const name of ['file', 'folder']) {
      const read = execFileSync('getfattr', ['--only-values', '-n', 'user.big', join(at, name)])
      assert.ok(read.equals(value), name)
    }
    assert.deepEqual(readdirSync(join(at, 'folder')), ['a', 'b'])
    assert.equal(readlinkSync(join(at, 'link')).length, 3000)
  })
})

test('files with holes have their data, holes and end in the right places, in files of terabytes too', (t) => {
  const path = join(temporaryDirectory(t), 'image')
  const data = Buffer.from(createRandom(6).bytes(10 * block))
  const extent = (fileBlock: number, regionBlock: number, count: number) => ({
    fileOffset: fileBlock * block,
    lengthBytes: count * block,
    segmentOffset: regionBlock * block,
  })
  writeImage(
    path,
    directory({
      holes: inode('file', { sizeBytes: 20 * block + 5, extents: [extent(3, 0, 2), extent(9, 4, 3)] }),
      large: inode('file', { sizeBytes: 5 * 2 ** 30 + 1, extents: [extent(2 ** 20, 2, 1)] }),
      void: inode('file', { sizeBytes: 2 ** 42 + 1 }),
      split: inode('file', { sizeBytes: 4 * block, extents: [extent(0, 8, 2), extent(2, 0, 2)] }),
      last: inode('file', { sizeBytes: 3 * block + 7, extents: [{ ...extent(2, 5, 2), lengthBytes: block + 7 }] }),
    }),
    data,
  )
  withMount(path, (at) => {
    const expected = Buffer.alloc(20 * block + 5)
    data.copy(expected, 3 * block, 0, 2 * block)
    data.copy(expected, 9 * block, 4 * block, 7 * block)
    assert.ok(readFileSync(join(at, 'holes')).equals(expected))
    assert.equal(lstatSync(join(at, 'large')).size, 5 * 2 ** 30 + 1)
    assert.ok(
      readAt(join(at, 'large'), 2 ** 32 - 100, 300).equals(
        Buffer.concat([Buffer.alloc(100), data.subarray(2 * block, 2 * block + 200)]),
      ),
    )
    assert.ok(readAt(join(at, 'void'), 2 ** 42 - 10, 100).equals(Buffer.alloc(11)))
    assert.ok(
      readFileSync(join(at, 'split')).equals(Buffer.concat([data.subarray(8 * block), data.subarray(0, 2 * block)])),
    )
    assert.ok(
      readFileSync(join(at, 'last')).equals(
        Buffer.concat([Buffer.alloc(2 * block), data.subarray(5 * block, 6 * block + 7)]),
      ),
    )
  })
})

test('a map of chunks is as coarse as the holes allow', () => {
  assert.deepEqual(
    mapFile(
      [
        { fileBlock: 0, dataBlock: 7, count: 3 },
        { fileBlock: 3, dataBlock: 10, count: 2 },
      ],
      5,
    ),
    { dataBlock: 7 },
  )
  assert.deepEqual(mapFile([{ fileBlock: 8, dataBlock: 1, count: 8 }], 30), {
    chunkBits: 3,
    chunks: [undefined, 1, undefined, undefined],
  })
  assert.deepEqual(mapFile([{ fileBlock: 16, dataBlock: 1, count: 3 }], 19), {
    chunkBits: 4,
    chunks: [undefined, 1],
  })
  assert.deepEqual(mapFile([], 2 ** 30), { chunkBits: 30, chunks: [undefined] })
  const tooFine = (): unknown => mapFile([{ fileBlock: 1, dataBlock: 0, count: 1 }], 2 ** 28)
  assert.throws(tooFine, (error) => isP2pfsError(error, 'unsupported') && /Use the format ext4/.test(error.message))
})

test('places do not overlap, are aligned, and lie within one block where they fit into one', () => {
  for (let round = 1; round <= 50; round++) {
    const random = createRandom(round)
    const slots = new SlotAllocator(1152)
    const taken = Array.from({ length: 300 }, () => {
      const size = 64 + (random.below(4) === 0 ? random.below(9000) : random.below(200))
      return { at: slots.allocate(size), size }
    }).sort((a, b) => a.at - b.at)
    for (const [i, { at, size }] of taken.entries()) {
      assert.equal(at % 32, 0)
      assert.ok(at + size <= (taken[i + 1]?.at ?? slots.end), `seed ${round}`)
      if (size <= block) assert.equal(Math.floor(at / block), Math.floor((at + size - 1) / block), `seed ${round}`)
    }
  }
})

test('entries that EROFS cannot hold are refused, naming the path', () => {
  const refuses = (node: ModelInode, pattern: RegExp): void =>
    assert.throws(
      () => planErofs(treeOf(directory({ dir: directory({ it: node }) })), [], seed),
      (error) => isP2pfsError(error, 'unsupported') && pattern.test(error.message),
    )
  refuses(inode('file', { xattrs: [{ name: 'system.x', value: Buffer.of(1) }] }), /\/dir\/it: EROFS cannot store/)
  refuses(inode('file', { xattrs: [{ name: 'user.x', value: Buffer.alloc(70_000) }] }), /\/dir\/it.*too long/)
  refuses(inode('symlink', { linkTarget: 'x'.repeat(4096) }), /\/dir\/it: link target/)
  refuses(inode('character', { device: { major: 5000, minor: 1 } }), /\/dir\/it: device number 5000:1/)
})
