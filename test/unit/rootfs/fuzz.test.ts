import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { encodeImageRecord, parseImageRecord } from '../../../protocol/image-record.ts'
import { encodeLayerIndex, parseLayerIndex, type LayerIndex } from '../../../protocol/layer-index.ts'
import { encodePublishedIndex, parsePublishedIndex } from '../../../protocol/published-index.ts'
import { encodeAnswerHeader, encodeWants, parseAnswer, parseWants } from '../../../protocol/messages/chunk.ts'
import {
  encodeObjectAnswer,
  encodeObjectRequest,
  parseObjectAnswer,
  parseObjectRequest,
} from '../../../protocol/messages/object.ts'
import { encodeRegionMessage, parseRegionMessage } from '../../../protocol/messages/region.ts'
import { encodeRootfsManifest, parseRootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { decompress } from '../../../node/rootfs/decompress.ts'
import { LayerIndexer } from '../../../node/rootfs/layer-indexer.ts'
import { buildRootfs } from '../../../node/rootfs/rootfs-build.ts'
import { mutate, runFuzz, type Random } from '../../support/fuzz.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { testKey } from '../../support/test-key.ts'

const limits = { maxLayerBytes: 64 * 2 ** 20, maxMetadataBytes: 8 * 2 ** 20 }

/** Tars of all formats that GNU tar writes, small, with links, holes, long names and attributes. */
function makeTars(t: TestContext): Buffer[] {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'tree/sub'), { recursive: true })
  writeFileSync(join(directory, 'tree/sub/file'), 'content'.repeat(200))
  writeFileSync(join(directory, 'tree', 'n'.repeat(180)), 'long')
  const shell = `cd tree && ln sub/file hard && ln -s ${'t'.repeat(120)} soft && mkfifo pipe && mknod null c 1 3 && chown 3000000:4000000 sub &&
    setfattr -n user.note -v value sub && touch -d @1.123456789 sub/.wh.gone sub/.wh..wh..opq &&
    truncate -s 1M sparse && printf data | dd of=sparse bs=1 seek=100001 conv=notrunc status=none && printf end | dd of=sparse bs=1 seek=600000 conv=notrunc status=none`
  execFileSync('sh', ['-c', shell], { cwd: directory })
  const formats = [
    ['--format=gnu', '-S'],
    ['--format=pax', '-S', '--xattrs', '--sparse-version=1.0'],
    ['--format=pax', '-S', '--xattrs', '--sparse-version=0.1'],
    ['--format=pax', '-S', '--xattrs', '--sparse-version=0.0'],
    [
      '--format=v7',
      '--exclude=./pipe',
      '--exclude=./null',
      '--exclude=./sub',
      '--exclude=./soft',
      `--exclude=./${'n'.repeat(180)}`,
    ],
  ]
  return formats.map((format) =>
    execFileSync('tar', [...format, '-b', '2', '-C', join(directory, 'tree'), '-cf', '-', '.'], { maxBuffer: 2 ** 26 }),
  )
}

const isHeader = (tar: Buffer, at: number): boolean => tar.toString('latin1', at + 257, at + 262) === 'ustar'

function fixChecksum(tar: Buffer, at: number): void {
  tar.fill(0x20, at + 148, at + 156)
  let sum = 0
  for (let i = at; i < at + 512; i++) sum += tar[i]!
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1')
}

/** Offset and length of a header's fields, and of GNU's sparse map in it. */
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

/** Headers with other fields, taken out, doubled, from elsewhere; damage; a cut. Checksums are mostly put right. */
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

test('a tar that is damaged in any way makes an index that is right in itself, or is refused as invalid', async (t) => {
  const tars = makeTars(t)
  await runFuzz(async (random) => {
    const index = await indexTar(mutateTar(tars, random), 1 + random.below(70_000))
    const bytes = encodeLayerIndex(index)
    assert.deepEqual(encodeLayerIndex(parseLayerIndex(bytes)), bytes)
  })
})

test('what comes of a damaged tar can be made into a rootfs of either format, or is refused', async (t) => {
  const tars = makeTars(t)
  await runFuzz(async (random) => {
    const lower = await indexTar(tars[1]!, 70_000)
    const upper = await indexTar(mutateTar(tars, random), 70_000)
    const format = random.below(2) === 0 ? 'ext4' : 'erofs'
    await buildRootfs([lower, upper], { config: '{}', format }, { put: async () => undefined })
  })
})

test('a compressed stream that is damaged in any way comes out whole, or is refused as invalid', async () => {
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

test('records and messages that are damaged in any way are read, or refused as invalid', async (t) => {
  const index = await indexTar(makeTars(t)[1]!, 70_000)
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
      }),
      parseImageRecord,
    ],
    [
      encodePublishedIndex({ manifest: encodeRootfsManifest(manifest), maps: [], profile: Uint8Array.of(1) }),
      parsePublishedIndex,
    ],
    [
      encodeWants([
        { id: 1, digest: diffId },
        { id: 2, digest: diffId },
      ]),
      parseWants,
    ],
    [Buffer.concat([encodeAnswerHeader(7, 'chunk'), Buffer.alloc(4096)]), parseAnswer],
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
    [
      encodeRegionMessage({ type: 'members', members: [{ peer: 'p', addresses: ['/ip4/127.0.0.1/tcp/1'] }] }),
      parseRegionMessage,
    ],
    [encodeRegionMessage({ type: 'have', table: diffId, held: new Bitmap(20) }), parseRegionMessage],
    [encodeRegionMessage({ type: 'delta', table: diffId, added: [1, 2], removed: [3] }), parseRegionMessage],
  ]
  await runFuzz(async (random) => {
    const [bytes, parse] = samples[random.below(samples.length)]!
    let damaged: Buffer = Buffer.from(bytes)
    for (let n = 1 + random.below(4); n > 0; n--) damaged = mutate(damaged, random)
    parse(damaged)
  })
})

test('a length that promises more than there is costs no memory', () => {
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
