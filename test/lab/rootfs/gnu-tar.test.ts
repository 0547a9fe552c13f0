import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import type { LayerEntry } from '../../../protocol/layer-entry.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { importLayer } from '../../../node/rootfs/layer-import.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const { signal } = new AbortController()

/** Keeps chunks, and puts the data segment together from them. */
class MapSink {
  readonly chunks = new Map<Digest, Uint8Array>()

  put = async (digest: Digest, bytes: Uint8Array): Promise<void> => {
    assert.equal(digestOf(bytes), digest)
    this.chunks.set(digest, bytes)
  }

  segment({ chunks }: LayerIndex): Buffer {
    return Buffer.concat(Array.from({ length: chunks.count }, (_, i) => this.chunks.get(chunks.digestAt(i))!))
  }

  content(index: LayerIndex, { sizeBytes, extents }: LayerEntry): Buffer {
    const segment = this.segment(index)
    const content = Buffer.alloc(sizeBytes)
    for (const { fileOffset, lengthBytes, segmentOffset } of extents)
      segment.copy(content, fileOffset, segmentOffset, segmentOffset + lengthBytes)
    return content
  }
}

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function importTar(tar: Buffer): Promise<{ index: LayerIndex; sink: MapSink }> {
  const sink = new MapSink()
  const { index } = await importLayer(pieces(tar, 64 * 1024), { name: 'test' }, sink, { signal })
  return { index, sink }
}

/** A tree with a bit of everything that a tar can hold. */
function makeTree(directory: string): void {
  const random = createRandom(3)
  mkdirSync(join(directory, 'tree/sub'), { recursive: true })
  for (let i = 0; i < 120; i++)
    writeFileSync(join(directory, 'tree/sub', `file-${i}`), random.bytes(random.below(30_000)))
  writeFileSync(join(directory, 'tree/big'), random.bytes(2_500_000))
  writeFileSync(join(directory, 'tree/empty'), '')
  writeFileSync(join(directory, 'tree', 'n'.repeat(200)), 'long name')
  const shell = [
    'cd tree',
    `ln sub/file-1 hard && ln -s ${'t'.repeat(150)} soft && mkfifo pipe && mknod null c 1 3`,
    'chmod 4755 hard && chown 3000000:4000000 empty && setfattr -n user.note -v value empty',
    "touch -d @1.123456789 empty && touch -d '1960-01-01 00:00:00.5 UTC' soft -h",
    'truncate -s 50M sparse && printf data | dd of=sparse bs=1 seek=10000001 conv=notrunc status=none',
    'printf end | dd of=sparse bs=1 seek=30000000 conv=notrunc status=none',
  ].join(' && ')
  execFileSync('sh', ['-c', shell], { cwd: directory })
}

const formats: [string, string[]][] = [
  [
    'ustar',
    ['--format=ustar', '--exclude=./sparse', `--exclude=./${'n'.repeat(200)}`, '--exclude=./soft', '--exclude=./empty'],
  ],
  ['gnu', ['--format=gnu', '-S']],
  ['pax, sparse 1.0', ['--format=pax', '-S', '--xattrs', '--sparse-version=1.0']],
  ['pax, sparse 0.1', ['--format=pax', '-S', '--xattrs', '--sparse-version=0.1']],
  ['pax, sparse 0.0', ['--format=pax', '-S', '--xattrs', '--sparse-version=0.0']],
]

for (const [name, options] of formats) {
  test(`a tar of format ${name} is read as the tree that it was made from`, async (t) => {
    const directory = temporaryDirectory(t)
    makeTree(directory)
    const tar = execFileSync('tar', [...options, '-C', join(directory, 'tree'), '-cf', '-', '.'], {
      maxBuffer: 2 ** 28,
    })
    const { index, sink } = await importTar(tar)
    const entries = new Map(Array.from(index.entries, (entry) => [entry.path, entry]))
    assert.equal(index.tarBytes, tar.length)
    for (let i = 0; i < 120; i++) {
      const entry = entries.get(`sub/file-${i}`)!
      if (entry.type === 'file')
        assert.deepEqual(sink.content(index, entry), readFileSync(join(directory, 'tree/sub', `file-${i}`)))
    }
    const links = [entries.get('hard')!, entries.get('sub/file-1')!]
    assert.deepEqual(links.map(({ type }) => type).toSorted(), ['file', 'hardlink'])
    assert.equal(entries.get('hard')!.mode, 0o4755)
    assert.deepEqual(sink.content(index, entries.get('big')!), readFileSync(join(directory, 'tree/big')))
    assert.equal(entries.get('pipe')!.type, 'fifo')
    assert.deepEqual(entries.get('null')!.device, { major: 1, minor: 3 })
    if (name === 'ustar') return
    assert.equal(entries.get('soft')!.linkTarget, 't'.repeat(150))
    assert.ok(entries.has('n'.repeat(200)))
    const sparse = entries.get('sparse')!
    assert.equal(sparse.sizeBytes, 50 * 2 ** 20)
    assert.deepEqual(sink.content(index, sparse), readFileSync(join(directory, 'tree/sparse')))
    assert.ok(sparse.extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) < 200_000)
    const empty = entries.get('empty')!
    assert.deepEqual([empty.uid, empty.gid, empty.extents], [3_000_000, 4_000_000, []])
    if (name === 'gnu') return
    assert.deepEqual(empty.mtime, { seconds: 1, nanoseconds: 123_456_789 })
    assert.deepEqual(entries.get('soft')!.mtime, { seconds: -315_619_200, nanoseconds: 500_000_000 })
    assert.deepEqual(empty.xattrs, [{ name: 'user.note', value: Uint8Array.from(Buffer.from('value')) }])
  })
}
