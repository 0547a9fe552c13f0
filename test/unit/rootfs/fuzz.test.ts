import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { isP2pfsError } from '../../../protocol/errors.ts'
import {
  encodeSpanAnswer,
  encodeSpanQuestion,
  parseSpanAnswer,
  parseSpanQuestion,
} from '../../../protocol/messages/span.ts'
import { encodeImageRecord, parseImageRecord } from '../../../protocol/image-record.ts'
import { encodeLayerIndex, parseLayerIndex, type LayerIndex } from '../../../protocol/layer-index.ts'
import { encodePublishedIndex, parsePublishedIndex } from '../../../protocol/published-index.ts'
import {
  encodeAnswerHeader,
  encodeComing,
  encodeHolders,
  encodeWants,
  parseAnswer,
  parseWants,
} from '../../../protocol/messages/chunk.ts'
import {
  encodeObjectAnswer,
  encodeObjectRequest,
  parseObjectAnswer,
  parseObjectRequest,
} from '../../../protocol/messages/object.ts'
import { encodeRegionMessage, parseRegionMessage } from '../../../protocol/messages/region.ts'
import { encodeRootfsManifest, parseRootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { decompress } from '../../../node/rootfs/decompress.ts'
import { LayerIndexer } from '../../../node/rootfs/layer-indexer.ts'
import { buildRootfs } from '../../../node/rootfs/rootfs-build.ts'
import { mutate, runFuzz, type Random } from '../../support/fuzz.ts'
import { writeTar, type TarEntry } from '../../support/tar-writer.ts'
import { testKey } from '../../support/test-key.ts'

const limits = { maxLayerBytes: 64 * 2 ** 20, maxMetadataBytes: 8 * 2 ** 20 }

/** Small tars of all formats, with links, holes, long names and attributes. */
function makeTars(): Buffer[] {
  const pieces = [
    { offset: 100_001, bytes: Buffer.from('data') },
    { offset: 600_000, bytes: Buffer.from('end') },
  ]
  const tree = (encoding: 'gnu' | 'pax', format: 'S' | '0.0' | '0.1' | '1.0'): TarEntry[] => [
    { path: 'sub/', type: 'directory', uid: 3_000_000, gid: 4_000_000, encoding },
    { path: 'sub/file', type: 'file', content: Buffer.from('content'.repeat(200)), encoding },
    { path: 'n'.repeat(180), type: 'file', content: Buffer.from('long'), encoding },
    { path: 'hard', type: 'hardlink', linkTarget: 'sub/file', encoding },
    { path: 'soft', type: 'symlink', linkTarget: 't'.repeat(120), encoding },
    { path: 'pipe', type: 'fifo', encoding },
    { path: 'null', type: 'character', device: { major: 1, minor: 3 }, encoding },
    { path: 'sub/.wh.gone', type: 'file', encoding },
    { path: 'sub/.wh..wh..opq', type: 'file', encoding },
    { path: 'sparse', type: 'file', sparse: { sizeBytes: 1_000_000, pieces, format } },
  ]
  const attributed: TarEntry = {
    path: 'sub/noted',
    type: 'file',
    mtime: { seconds: 1, nanoseconds: 123_456_789 },
    xattrs: { 'user.note': 'value' },
  }
  return [
    writeTar(tree('gnu', 'S')),
    ...(['1.0', '0.1', '0.0'] as const).map((format) => writeTar([...tree('pax', format), attributed])),
    writeTar([
      { path: 'file', type: 'file', content: Buffer.from('short'), encoding: 'ustar' },
      { path: 'hard', type: 'hardlink', linkTarget: 'file', encoding: 'ustar' },
    ]),
  ]
}

const isHeader = (tar: Buffer, at: number): boolean => tar.toString('latin1', at + 257, at + 262) === 'ustar'

function fixChecksum(tar: Buffer, at: number): void {
  tar.fill(0x20, at + 148, at + 156)
  let sum = 0
  for (let i = at; i < at + 512; i++) sum += tar[i]!
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1')
}

/** Offset and length of a header's fields, GNU's sparse map among them. */
const fields = [
  [0, 100],
  [100, 8],
  [108, 8],
  [116, 8],
  [124, 12],
  [136, 12],
  [156, 1],
  [157, 100],
  [257, 8],
  [329, 8],
  [337, 8],
  [345, 155],
  [386, 24],
  [410, 24],
  [482, 1],
  [483, 12],
] as const
const values = [
  '',
  '0',
  '7777777',
  '77777777777',
  '-1',
  ' 12 ',
  '8',
  '\x80',
  '\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff',
  '\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff',
  '../x',
  '/',
  '.',
  '.wh..wh..opq',
  'a/../../b',
  'x'.repeat(100),
]
const typeflags = '01234567LKxgSDVNM\0'

/** Changes fields of headers, drops, doubles or moves records, or damages bytes. Most checksums are put right. */
function mutateTar(tars: readonly Buffer[], random: Random): Buffer {
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!
  let tar: Buffer = Buffer.from(pick(tars))
  for (let n = 1 + random.below(4); n > 0 && tar.length >= 1024; n--) {
    const at = random.below(tar.length / 512) * 512
    const kind = random.below(8)
    if (kind <= 3 && at + 512 <= tar.length && isHeader(tar, at)) {
      const [offset, length] = pick(fields)
      const value = Buffer.from(
        offset === 156 ? typeflags[random.below(typeflags.length)]! : pick(values),
        'latin1',
      ).subarray(0, length)
      tar.fill(0, at + offset, at + offset + length)
      value.copy(tar, at + offset)
      if (random.below(20) > 0) fixChecksum(tar, at)
    } else if (kind === 4) {
      const other = pick(tars)
      const from = random.below(other.length / 512) * 512
      tar = Buffer.concat([
        tar.subarray(0, at),
        other.subarray(from, from + 512 * (1 + random.below(6))),
        tar.subarray(at),
      ])
    } else if (kind === 5) tar = Buffer.concat([tar.subarray(0, at), tar.subarray(at + 512)])
    else tar = mutate(tar, random)
  }
  return tar
}

async function indexTar(tar: Buffer, step: number): Promise<LayerIndex> {
  let kept = 0
  const indexer = new LayerIndexer({ put: async (_digest, bytes) => void (kept += bytes.length) }, limits)
  try {
    for (let at = 0; at < tar.length; at += step) await indexer.push(tar.subarray(at, at + step))
    return await indexer.finish()
  } finally {
    assert.ok(kept <= limits.maxLayerBytes + 2 ** 20, `${kept} bytes of chunks`)
  }
}

test('a damaged tar makes a consistent index, or is refused as invalid', async () => {
  const tars = makeTars()
  await runFuzz(async (random) => {
    const index = await indexTar(mutateTar(tars, random), 1 + random.below(70_000))
    const bytes = encodeLayerIndex(index)
    assert.deepEqual(encodeLayerIndex(parseLayerIndex(bytes)), bytes)
  })
})

test('the index of a damaged tar makes a rootfs of both formats, or is refused', async () => {
  const tars = makeTars()
  await runFuzz(async (random) => {
    const lower = await indexTar(tars[1]!, 70_000)
    const upper = await indexTar(mutateTar(tars, random), 70_000)
    const format = random.below(2) === 0 ? 'ext4' : 'erofs'
    await buildRootfs([lower, upper], { config: '{}', format }, { put: async () => undefined })
  })
})

test('a damaged compressed stream comes out whole, or is refused as invalid', async () => {
  const content = Buffer.from('some text, and more of it; '.repeat(2000))
  const half = content.length / 2
  const streams = [
    gzipSync(content),
    Buffer.concat([gzipSync(content.subarray(0, half)), gzipSync(content.subarray(half))]),
    zstdCompressSync(content),
    Buffer.concat([
      zstdCompressSync(content.subarray(0, half)),
      Buffer.from('502a4d180400000001020304', 'hex'),
      zstdCompressSync(content.subarray(half)),
    ]),
    content,
  ]
  await runFuzz(async (random) => {
    let stream: Buffer = Buffer.from(streams[random.below(streams.length)]!)
    for (let n = random.below(4); n > 0; n--) stream = mutate(stream, random)
    const step = 1 + random.below(3000)
    const pieces = async function* (): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < stream.length; at += step) yield stream.subarray(at, at + step)
    }
    let length = 0
    for await (const bytes of decompress(pieces())) length += bytes.length
    assert.ok(length < 2 ** 28)
  })
})

test('damaged records and messages are read, or refused as invalid', async () => {
  const index = await indexTar(makeTars()[1]!, 70_000)
  const { diffId } = index
  const manifest = await buildRootfs(
    [index],
    { config: '{"os":"linux"}', format: 'ext4' },
    { put: async () => undefined },
  )
  const samples: [Uint8Array, (bytes: Uint8Array) => unknown][] = [
    [encodeLayerIndex(index), parseLayerIndex],
    [encodeRootfsManifest(manifest), parseRootfsManifest],
    [
      encodeImageRecord({
        reference: 'docker.io/library/x:1',
        platform: 'linux/amd64',
        format: 'ext4',
        manifestDigest: diffId,
        manifest: '{}',
        rootfsDigest: diffId,
        attestation: { key: (await testKey(1)).key, signature: new Uint8Array(64) },
        nameStatement: { key: (await testKey(1)).key, signature: new Uint8Array(64), statedAtMs: 1 },
      }),
      parseImageRecord,
    ],
    [
      encodePublishedIndex({ manifest: encodeRootfsManifest(manifest), maps: [], profile: Uint8Array.of(1) }),
      parsePublishedIndex,
    ],
    [
      encodeWants([
        { id: 1, kind: 'held', priority: 'demand', waits: true, depth: 0, digest: diffId },
        { id: 2, kind: 'raise', priority: 'demand', waits: false, depth: 0, digest: diffId },
      ]),
      parseWants,
    ],
    [encodeSpanQuestion({ table: diffId, spans: [1, 2], without: 'x', level: 1 }), parseSpanQuestion],
    [encodeSpanAnswer([{ depth: 1, member: 'x' }]), parseSpanAnswer],
    [Buffer.concat([encodeAnswerHeader(7, 'chunk'), Buffer.alloc(4096)]), parseAnswer],
    [encodeComing([1, 2, 3]), parseAnswer],
    [Buffer.concat([encodeAnswerHeader(7, 'busy'), encodeHolders(['a', 'b'])]), parseAnswer],
    [encodeObjectRequest({ kind: 'layer', diffId }), parseObjectRequest],
    [
      encodeObjectRequest({ kind: 'image', reference: 'x', platform: 'linux/amd64', format: 'ext4' }),
      parseObjectRequest,
    ],
    [encodeObjectAnswer(Uint8Array.of(1, 2, 3)), parseObjectAnswer],
    [
      encodeRegionMessage({ type: 'hello', region: 'r', name: 'n', addresses: ['/ip4/127.0.0.1/tcp/1'] }),
      parseRegionMessage,
    ],
    [encodeRegionMessage({ type: 'news', records: [], suspects: [{ peer: 'p', sequence: 7 }] }), parseRegionMessage],
    [
      encodeRegionMessage({ type: 'have', tables: [{ table: diffId, count: 20, first: 0, bits: Buffer.alloc(3, 1) }] }),
      parseRegionMessage,
    ],
    [encodeRegionMessage({ type: 'query', tables: [diffId, diffId] }), parseRegionMessage],
    [encodeRegionMessage({ type: 'answered' }), parseRegionMessage],
    [
      encodeRegionMessage({ type: 'delta', tables: [{ table: diffId, added: [1, 2], removed: [3] }] }),
      parseRegionMessage,
    ],
  ]
  await runFuzz(async (random) => {
    const [bytes, parse] = samples[random.below(samples.length)]!
    let damaged: Buffer = Buffer.from(bytes)
    for (let n = 1 + random.below(4); n > 0; n--) damaged = mutate(damaged, random)
    parse(damaged)
  })
})

test('a length beyond the end of the input costs no memory', () => {
  // A map of one pair, its value a list, bytes or text of 2^32 - 1.
  for (const head of ['9affffffff', '5affffffff', '7affffffff', 'baffffffff']) {
    const bytes = Buffer.from(`a16664696666496478${head}`, 'hex')
    for (const parse of [
      parseLayerIndex,
      parseRootfsManifest,
      parseImageRecord,
      parseRegionMessage,
      parseObjectRequest,
    ]) {
      assert.throws(
        () => parse(bytes),
        (error) => isP2pfsError(error, 'invalid'),
      )
    }
  }
})
