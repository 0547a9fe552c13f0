import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { globalHeader, writeTar, type TarEntry } from '../../../support/tar-writer.ts'
import { createRandom } from '../../../support/random.ts'
import { compareImages } from './compare-images.ts'

const random = createRandom(2)
const pieces = Array.from({ length: 40 }, (_, i) => ({
  offset: i * 10_000 + (i % 7) * 100,
  bytes: random.bytes(1000 + i),
}))
const sparse = { sizeBytes: 500_001, pieces }
const entries: TarEntry[] = [
  { path: 'directory', type: 'directory', mode: 0o711, mtime: { seconds: 1_700_000_000, nanoseconds: 5 } },
  { path: 'directory/file', type: 'file', content: random.bytes(100_000) },
  { path: 'stargz.index.json', type: 'file', content: Buffer.from('{"version":1,"entries":[]}') },
]
const tar = writeTar(entries)
const halves = [tar.subarray(0, 3000), tar.subarray(3000)]

/** A member whose header has all fields of RFC 1952. */
function gzipMember(
  bytes: Buffer,
  { extra, name, comment }: { extra?: Buffer; name?: string; comment?: string } = {},
): Buffer {
  const parts: Buffer[] = [
    Buffer.from([
      0x1f,
      0x8b,
      8,
      (extra ? 4 : 0) | (name === undefined ? 0 : 8) | (comment === undefined ? 0 : 16),
      0,
      0,
      0,
      0,
      0,
      255,
    ]),
  ]
  if (extra !== undefined) parts.push(Buffer.from([extra.length & 0xff, extra.length >>> 8]), extra)
  for (const text of [name, comment]) if (text !== undefined) parts.push(Buffer.from(`${text}\0`))
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(crc32(bytes), 0)
  trailer.writeUInt32LE(bytes.length, 4)
  return Buffer.concat([...parts, deflateRawSync(bytes), trailer])
}

/** A skippable frame: RFC 8878, section 3.1.2. */
function skippable(bytes: Buffer): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt32LE(0x184d2a50 + (bytes.length % 16), 0)
  header.writeUInt32LE(bytes.length, 4)
  return Buffer.concat([header, bytes])
}

/** The footer of eStargz: an empty member whose extra field has the offset of the table of contents. */
const stargzFooter = gzipMember(Buffer.alloc(0), { extra: Buffer.from('SG\x16\x000000000000000400STARGZ', 'latin1') })
const compressed: Record<string, Buffer> = {
  'plain tar': tar,
  gzip: gzipSync(tar),
  'gzip with name and comment': gzipMember(tar, {
    name: 'layer.tar',
    comment: 'of a layer',
    extra: Buffer.from('ab\x02\x00xy'),
  }),
  'gzip of several members, an empty one too': Buffer.concat([
    gzipMember(halves[0]!),
    gzipMember(Buffer.alloc(0)),
    gzipMember(halves[1]!, { name: 'rest' }),
  ]),
  'eStargz: a member for each file, and a footer': Buffer.concat([
    gzipSync(tar.subarray(0, 1024)),
    gzipSync(tar.subarray(1024)),
    stargzFooter,
  ]),
  zstd: zstdCompressSync(tar),
  'zstd of several frames': Buffer.concat(halves.map((half) => zstdCompressSync(half))),
  'zstd with skippable frames first and between': Buffer.concat([
    skippable(Buffer.from('first')),
    zstdCompressSync(halves[0]!),
    skippable(Buffer.alloc(0)),
    zstdCompressSync(halves[1]!),
  ]),
  'zstd:chunked: frames, table of contents and footer in skippable ones': Buffer.concat([
    ...halves.map((half) => zstdCompressSync(half)),
    skippable(zstdCompressSync(Buffer.from('{"version":1}'))),
    skippable(Buffer.alloc(64, 7)),
  ]),
}

for (const [name, blob] of Object.entries(compressed)) {
  test(`a layer as ${name}`, async () => {
    assert.deepEqual(await compareImages([{ name: 'image', layers: [{ blob, tar }] }], { worker: true }), new Map())
  })
}

/** Encodings that umoci does not read, and the same files in an encoding that it reads. */
const equivalents: Record<string, [Buffer, Buffer]> = {
  'sparse, old GNU format': [
    writeTar([{ path: 'sparse', type: 'file', sparse: { ...sparse, format: 'S' } }]),
    writeTar([{ path: 'sparse', type: 'file', sparse }]),
  ],
  'sparse, old GNU format, one piece, long name': [
    writeTar([
      { path: 's'.repeat(200), type: 'file', sparse: { sizeBytes: 10_000, pieces: pieces.slice(0, 1), format: 'S' } },
    ]),
    writeTar([{ path: 's'.repeat(200), type: 'file', sparse: { sizeBytes: 10_000, pieces: pieces.slice(0, 1) } }]),
  ],
  'PAX global headers are skipped, as in containerd and Docker': [
    Buffer.concat([
      globalHeader({ comment: 'a commit', mtime: '5', uid: '7', 'SCHILY.xattr.user.all': 'no', path: 'elsewhere' }),
      tar,
    ]),
    tar,
  ],
}
for (const [name, [ours, forUmoci]] of Object.entries(equivalents)) {
  test(name, async () => {
    assert.deepEqual(
      await compareImages([{ name: 'image', layers: [{ blob: ours, tar: ours }], forUmoci: [forUmoci] }]),
      new Map(),
    )
  })
}
