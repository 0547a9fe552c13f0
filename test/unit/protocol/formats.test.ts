import assert from 'node:assert/strict'
import { test } from 'node:test'
import { attest, encodeStatement, isAttested } from '../../../protocol/attestation.ts'
import { parseKey } from '../../../protocol/peer-key.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { encodeBootProfile, parseBootProfile, type BootProfile } from '../../../protocol/boot-profile.ts'
import { encodeBlobMap, parseBlobMap, type BlobMap } from '../../../protocol/blob-map.ts'
import { PackedPieces } from '../../../protocol/packed-pieces.ts'
import { encodeCbor } from '../../../protocol/cbor.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, parseDigest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { encodeImageRecord, isRecordSigned, parseImageRecord } from '../../../protocol/image-record.ts'
import type { LayerEntry } from '../../../protocol/layer-entry.ts'
import { encodeLayerIndex, parseLayerIndex, type LayerIndex } from '../../../protocol/layer-index.ts'
import {
  encodeSpanAnswer,
  encodeSpanQuestion,
  parseSpanAnswer,
  parseSpanQuestion,
} from '../../../protocol/messages/span.ts'
import {
  encodeAnswerHeader,
  encodeComing,
  encodeHolders,
  encodeWants,
  parseAnswer,
  parseWants,
} from '../../../protocol/messages/chunk.ts'
import {
  encodeImportAnswer,
  encodeImportRequest,
  parseImportAnswer,
  parseImportRequest,
  type ImportAnswer,
} from '../../../protocol/messages/import.ts'
import {
  encodeObjectAnswer,
  encodeObjectComing,
  encodeObjectRequest,
  parseObjectAnswer,
  parseObjectRequest,
} from '../../../protocol/messages/object.ts'
import { encodeRegionMessage, parseRegionMessage, type RegionMessage } from '../../../protocol/messages/region.ts'
import { encodeNameClaim, isNameStated, stateName } from '../../../protocol/name-statement.ts'
import { encodePublication, parsePublication, type Publication } from '../../../protocol/publication.ts'
import { encodePublishedIndex, parsePublishedIndex } from '../../../protocol/published-index.ts'
import { rawChunkBytes, rawLayerBytes, rawLayers } from '../../../protocol/raw-image.ts'
import { encodeRootfsManifest, parseRootfsManifest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { createRandom } from '../../support/random.ts'
import { testKey } from '../../support/test-key.ts'

const maker = await testKey(1)
const a = digestOf(Buffer.from('a'))
const b = digestOf(Buffer.from('b'))
const table = new ChunkTable([4096, 8192], Buffer.concat([digestToBytes(a), digestToBytes(b)]))

const entry: LayerEntry = {
  path: 'bin/caf\xe9',
  type: 'file',
  mode: 0o4755,
  uid: 1000,
  gid: 4_294_967_294,
  mtime: { seconds: -1, nanoseconds: 999_999_999 },
  xattrs: [{ name: 'user.a', value: Buffer.from([0, 255]) }],
  linkTarget: '',
  device: { major: 0, minor: 0 },
  sizeBytes: 5000,
  extents: [{ fileOffset: 0, lengthBytes: 5000, segmentOffset: 4096, tarOffset: 1024 }],
}
const index: LayerIndex = { diffId: b, tarBytes: 10_240, chunks: table, entries: [entry] }
const manifest: RootfsManifest = {
  format: 'ext4',
  metadata: table,
  layers: [{ diffId: a, chunks: table }],
  config: '{}',
}
const record = {
  reference: 'docker.io/library/debian:12',
  platform: 'linux/amd64',
  format: 'erofs',
  manifestDigest: a,
  manifest: '{"x":1}',
  rootfsDigest: b,
  attestation: { key: maker.key, signature: new Uint8Array(64).fill(7) },
  nameStatement: { key: maker.key, signature: new Uint8Array(64).fill(8), statedAtMs: 1_800_000_000_000 },
} as const
const statement = { manifestDigest: a, format: 'ext4', rootfsDigest: b } as const
const publication: Publication = {
  reference: 'docker.io/library/debian:12',
  manifestDigest: a,
  format: 'ext4',
  rootfsDigest: b,
  artifact: a,
  index: { digest: a, sizeBytes: 1 },
  metadata: { digest: b, sizeBytes: 2 },
  windows: { digest: b, sizeBytes: 3000 },
  windowSegments: [{ blob: a, table: b, offset: 4096 }],
  layerIndexes: [{ digest: a, sizeBytes: 4 }],
}

const blobMap: BlobMap = {
  digest: a,
  diffId: b,
  sizeBytes: 5000,
  tarBytes: 10_240,
  compression: 'gzip',
  checkpoints: [
    { bitOffset: 0, tarOffset: 0, window: { offset: 0, lengthBytes: 0 } },
    { bitOffset: 12_345, tarOffset: 4000, window: { offset: 0, lengthBytes: 900 } },
  ],
  stopPoints: Uint32Array.of(3),
  windows: new ChunkTable([4096], digestToBytes(a)),
  pieces: PackedPieces.of([{ segmentOffset: 4096, lengthBytes: 5000, tarOffset: 1024 }]),
}

/** Two layers, the second of which ends within a block. */
const rawBytes = rawLayerBytes(0) + 5000
const rawImage: RootfsManifest = {
  format: 'raw',
  metadata: new ChunkTable([], new Uint8Array(0)),
  layers: rawLayers(new Uint8Array(Math.ceil(rawBytes / rawChunkBytes) * digestToBytes(a).length).fill(5), rawBytes),
  config: '{}',
  sizeBytes: rawBytes,
}

const publishedIndex = {
  maps: [
    { map: blobMap, windowsOffset: 4096 },
    { map: blobMap, windowsOffset: undefined },
  ],
  profile: Uint8Array.of(1, 2),
}
const profile: BootProfile = { rootfs: a, sketch: [1, 2 ** 40 + 5], seconds: 12, chunks: [b, a] }

/** Each format: its golden digest (the bytes are long), and that it reads back. */
const formats: [string, Uint8Array, string, (bytes: Uint8Array) => Uint8Array][] = [
  [
    'layer index',
    encodeLayerIndex(index),
    'sha256:fd51529a791aebe1a342ae6f60178ac75a77948e4291154ee75a50bc1e4635cd',
    (bytes) => encodeLayerIndex(parseLayerIndex(bytes)),
  ],
  [
    'blob map',
    encodeBlobMap(blobMap),
    'sha256:81d86c4bfb8f6889ea9e66a721951759ea457a4b5fa270b1b58359880e77266f',
    (bytes) => encodeBlobMap(parseBlobMap(bytes)),
  ],
  [
    'rootfs manifest',
    encodeRootfsManifest(manifest),
    'sha256:84c561a2a6cfa07a21089460d5a588e17f0dd0cea2a6cc3103fbd546b7591bf1',
    (bytes) => encodeRootfsManifest(parseRootfsManifest(bytes)),
  ],
  [
    'rootfs manifest of a raw image',
    encodeRootfsManifest(rawImage),
    'sha256:8aa310e0ab10c16fd35056db7d7874c077c0af2fdad3ea9f91b5e9427057fb64',
    (bytes) => encodeRootfsManifest(parseRootfsManifest(bytes)),
  ],
  [
    'publication',
    encodePublication(publication),
    'sha256:06d2a17c0e9a11bc30c4e13e592d9a9a030ed13a1aec3a78d0f1c93a30734892',
    (bytes) => encodePublication(parsePublication(bytes)),
  ],
  [
    'published index',
    encodePublishedIndex({ ...publishedIndex, manifest: encodeRootfsManifest(manifest) }),
    'sha256:8479ec3bc04938500cf1641803798b910375287928f9c9cfbfd5c327877758ae',
    (bytes) => {
      const parsed = parsePublishedIndex(bytes)
      return encodePublishedIndex({ ...parsed, manifest: encodeRootfsManifest(parsed.manifest) })
    },
  ],
  [
    'image record',
    encodeImageRecord(record),
    'sha256:3242c77efd77e9eea9a8963168dde0fb16a746e0df0d6398b0f4a52903670642',
    (bytes) => encodeImageRecord(parseImageRecord(bytes)),
  ],
  [
    'boot profile',
    encodeBootProfile(profile),
    'sha256:1cc26b73872f43e862eaac827c47845ea51390cde698b621b8b23f35300c7af9',
    (bytes) => encodeBootProfile(parseBootProfile(bytes)),
  ],
]

for (const [name, bytes, golden, again] of formats) {
  test(`${name}: the bytes are those of format version 3, and read back`, () => {
    assert.equal(digestOf(bytes), golden)
    assert.deepEqual(Buffer.from(again(bytes)), Buffer.from(bytes))
  })

  test(`${name}: damaged bytes are invalid, whatever the damage`, () => {
    const random = createRandom(7)
    for (let round = 0; round < 400; round++) {
      const damaged = Buffer.from(round % 2 === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes)
      if (round % 2 === 1) damaged[random.below(damaged.length)]! ^= 1 << random.below(8)
      try {
        again(damaged)
      } catch (error) {
        assert.ok(isP2pfsError(error, 'invalid'), `${String(error)} in round ${round}`)
      }
    }
  })
}

test('attestation: what is signed, and the signature, are those of format version 3', async () => {
  const golden =
    'a566666f726d6174646578743466726f6f74667378477368613235363a336532336538313630303339353934613333383934663635363465316231333438626264376130303838643432633461636237336565616564353963303039646776657273696f6e03686d616e696665737478477368613235363a636139373831313263613162626463616661633233316233396132336463346461373836656666383134376334653732623938303737383561666565343862626973746174656d656e7477703270667320696e646578206174746573746174696f6e'
  assert.equal(Buffer.from(encodeStatement(statement)).toString('hex'), golden)
  const attestation = await attest(statement, maker)
  assert.equal(attestation.key, '12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5')
  assert.equal(
    Buffer.from(attestation.signature).toString('hex'),
    '503ff40268b8b30ca03d018fc47c082abe2325c91de4e233af248ea012336aba7fac8ca950cccee22a565002a66e64347d2f2a2cda4875da2f0a3a2d562be506',
  )
})

test('an attestation is of one statement, by one key', async () => {
  const attestation = await attest(statement, maker)
  assert.ok(isAttested(statement, attestation))
  const others = [
    { ...statement, manifestDigest: b },
    { ...statement, format: 'erofs' },
    { ...statement, rootfsDigest: a },
  ] as const
  for (const other of others) assert.equal(isAttested(other, attestation), false)
  assert.equal(isAttested(statement, { ...attestation, key: (await testKey(2)).key }), false)
  for (let at = 0; at < 64; at++) {
    const signature = Uint8Array.from(attestation.signature)
    signature[at]! ^= 1
    assert.equal(isAttested(statement, { ...attestation, signature }), false)
  }
  for (const signature of [new Uint8Array(64), new Uint8Array(0), new Uint8Array(63), new Uint8Array(65)])
    assert.equal(isAttested(statement, { ...attestation, signature }), false)
})

test('a maker who was told of the layers signs something else than one who has read them', async () => {
  const told = await attest(statement, maker, { told: true })
  assert.ok(isAttested(statement, told))
  const { key, signature } = told
  assert.equal(isAttested(statement, { key, signature }), false)
  assert.equal(isAttested(statement, { ...(await attest(statement, maker)), told: true }), false)
})

const named = { reference: record.reference, platform: record.platform, manifestDigest: a }

test('name statement: what is signed, and the signature, are those of version 1', async () => {
  const stated = await stateName(named, 1_800_000_000_000, maker)
  assert.equal(
    Buffer.from(encodeNameClaim(named, stated)).toString('hex'),
    'a66776657273696f6e01686d616e696665737478477368613235363a6361393738313132636131626264636166616332333162333961323364633464613738366566663831343763346537326239383037373835616665653438626268706c6174666f726d6b6c696e75782f616d643634697265666572656e6365781b646f636b65722e696f2f6c6962726172792f64656269616e3a31326973746174656d656e74747032706673206e616d652073746174656d656e746a73746174656441744d731b000001a3185c5000',
  )
  assert.deepEqual([stated.key, stated.statedAtMs], [maker.key, 1_800_000_000_000])
  assert.equal(
    Buffer.from(stated.signature).toString('hex'),
    'b2e8bfbd357feb981f6b86d42b9a5ac9cfb8b90c975a971b6378c4bccd4b06881637605f30e47f3f4864673d53ab50e3705ab45b9e3eb70e7d63d52b32164b04',
  )
})

test('a name statement is of one name, one platform, one image and one time, by one key', async () => {
  const stated = await stateName(named, 5, maker)
  assert.ok(isNameStated(named, stated))
  for (const other of [
    { reference: 'docker.io/library/debian:13' },
    { platform: 'linux/arm64' },
    { manifestDigest: b },
  ])
    assert.equal(isNameStated({ ...named, ...other }, stated), false)
  assert.equal(isNameStated(named, { ...stated, statedAtMs: 6 }), false)
  assert.equal(isNameStated(named, { ...stated, key: (await testKey(2)).key }), false)
  for (let at = 0; at < 64; at++) {
    const signature = Uint8Array.from(stated.signature)
    signature[at]! ^= 1
    assert.equal(isNameStated(named, { ...stated, signature }), false)
  }
})

test('a record is signed for the name, the manifest and the rootfs that it has', async () => {
  const manifest = '{"layers":[]}'
  const whole = { ...record, manifest, manifestDigest: digestOf(Buffer.from(manifest)) }
  const signed = {
    ...whole,
    attestation: await attest(whole, maker),
    nameStatement: await stateName(whole, 1, await testKey(2)),
  }
  assert.ok(isRecordSigned(signed))
  for (const other of [
    { reference: 'docker.io/library/debian:13' },
    { platform: 'linux/arm64' },
    { format: 'ext4' },
    { manifest: '{"layers":[0]}' },
    { manifestDigest: b },
    { rootfsDigest: a },
    { nameStatement: { ...signed.nameStatement, statedAtMs: 2 } },
  ] as const)
    assert.equal(isRecordSigned({ ...signed, ...other }), false, JSON.stringify(other))
})

test('a key is a peer id of Ed25519, in its one form', () => {
  assert.equal(parseKey(maker.key), maker.key)
  const rsa = 'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N'
  const wrong = ['', 'x', rsa, ` ${maker.key}`, maker.key.slice(1), `${maker.key}1`, `z${maker.key}`, '12D3KooW']
  for (const text of wrong)
    assert.throws(
      () => parseKey(text),
      (error) => isP2pfsError(error, 'invalid') && /p2pfs status/.test(error.message),
      text,
    )
})

/** Messages are short: their bytes stand here. */
const messages: [string, Uint8Array, string, (bytes: Uint8Array) => unknown, unknown][] = []
const region = (message: RegionMessage, golden: string): void =>
  void messages.push([
    message.type,
    encodeRegionMessage(message),
    golden,
    (bytes) => parseRegionMessage(bytes),
    message,
  ])
region(
  { type: 'hello', region: 'eu', name: 'n', addresses: ['/ip4/10.0.0.1/tcp/1'] },
  'a4646e616d65616e64747970656568656c6c6f66726567696f6e6265756961646472657373657381732f6970342f31302e302e302e312f7463702f31',
)
region(
  { type: 'news', records: [{ claim: Uint8Array.of(1), signature: Uint8Array.of(2) }], suspects: [] },
  'a36474797065646e657773677265636f72647381a265636c61696d4101697369676e6174757265410268737573706563747380',
)
region(
  { type: 'news', records: [], suspects: [{ peer: 'p', sequence: 7 }] },
  'a36474797065646e657773677265636f7264738068737573706563747381a2647065657261706873657175656e636507',
)
region(
  { type: 'listing', buckets: Uint8Array.of(3), members: [{ peer: 'p', sequence: 7 }] },
  'a36474797065676c697374696e67676275636b6574734103676d656d6265727381a2647065657261706873657175656e636507',
)
region({ type: 'wants', members: ['p'] }, 'a264747970656577616e7473676d656d62657273816170')
region(
  { type: 'query', tables: [a] },
  'a26474797065657175657279667461626c65735820ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',
)
region({ type: 'answered' }, 'a1647479706568616e737765726564')
region(
  { type: 'have', tables: [{ table: a, count: 10, first: 0, bits: Uint8Array.of(0b10000001, 0b10) }] },
  'a264747970656468617665667461626c657381a4646269747342810265636f756e740a65666972737400657461626c655820ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',
)
region(
  { type: 'delta', tables: [{ table: a, added: [1, 300], removed: [] }] },
  'a264747970656564656c7461667461626c657381a3656164646564820119012c657461626c655820ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb6772656d6f76656480',
)
for (const [request, golden] of [
  [
    { kind: 'image', reference: 'r', platform: 'p', format: 'ext4' },
    'a4646b696e6465696d61676566666f726d6174646578743468706c6174666f726d6170697265666572656e63656172',
  ],
  [
    { kind: 'rootfs', digest: a },
    'a2646b696e6466726f6f7466736664696765737478477368613235363a63613937383131326361316262646361666163323331623339613233646334646137383665666638313437633465373262393830373738356166656534386262',
  ],
  [
    { kind: 'map', digest: a },
    'a2646b696e64636d61706664696765737478477368613235363a63613937383131326361316262646361666163323331623339613233646334646137383665666638313437633465373262393830373738356166656534386262',
  ],
  [
    { kind: 'profile', rootfs: a, sketch: [3, 2 ** 48 - 1] },
    'a3646b696e646770726f66696c6566726f6f74667378477368613235363a6361393738313132636131626264636166616332333162333961323364633464613738366566663831343763346537326239383037373835616665653438626266736b657463684c000000000003ffffffffffff',
  ],
  [
    { kind: 'import', digest: a },
    'a2646b696e6466696d706f72746664696765737478477368613235363a63613937383131326361316262646361666163323331623339613233646334646137383665666638313437633465373262393830373738356166656534386262',
  ],
  [
    { kind: 'blob', digest: a },
    'a2646b696e6464626c6f626664696765737478477368613235363a63613937383131326361316262646361666163323331623339613233646334646137383665666638313437633465373262393830373738356166656534386262',
  ],
  [
    { kind: 'layer', diffId: a },
    'a2646b696e64656c617965726664696666496478477368613235363a63613937383131326361316262646361666163323331623339613233646334646137383665666638313437633465373262393830373738356166656534386262',
  ],
] as const) {
  messages.push([
    `${request.kind} request`,
    encodeObjectRequest(request),
    golden,
    (bytes) => parseObjectRequest(bytes),
    request,
  ])
}
const importRequest = { reference: 'r', platform: 'p', format: 'ext4', manifestDigest: a } as const
messages.push([
  'request to a steward',
  encodeImportRequest(importRequest),
  'a466666f726d6174646578743468706c6174666f726d6170697265666572656e636561726e6d616e696665737444696765737478477368613235363a63613937383131326361316262646361666163323331623339613233646334646137383665666638313437633465373262393830373738356166656534386262',
  (bytes) => parseImportRequest(bytes),
  importRequest,
])
for (const [answer, golden] of [
  [
    { type: 'progress', doneBytes: 1, totalBytes: 300, layers: [a] },
    'a464747970656870726f6772657373666c61796572738178477368613235363a6361393738313132636131626264636166616332333162333961323364633464613738366566663831343763346537326239383037373835616665653438626269646f6e654279746573016a746f74616c427974657319012c',
  ],
  [
    { type: 'image', record },
    'a2647479706565696d616765667265636f7264590245a866666f726d61746565726f6673686d616e6966657374677b2278223a317d68706c6174666f726d6b6c696e75782f616d643634697265666572656e6365781b646f636b65722e696f2f6c6962726172792f64656269616e3a31326b6174746573746174696f6ea2636b65797834313244334b6f6f574b3939566f56784e4537587a79427758457a573778684b37477076383572394633563366794b53554b504835697369676e61747572655840070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707076c726f6f74667344696765737478477368613235363a336532336538313630303339353934613333383934663635363465316231333438626264376130303838643432633461636237336565616564353963303039646d6e616d6553746174656d656e74a3636b65797834313244334b6f6f574b3939566f56784e4537587a79427758457a573778684b37477076383572394633563366794b53554b504835697369676e61747572655840080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808086a73746174656441744d731b000001a3185c50006e6d616e696665737444696765737478477368613235363a63613937383131326361316262646361666163323331623339613233646334646137383665666638313437633465373262393830373738356166656534386262',
  ],
  [{ type: 'refused', code: 'denied' }, 'a264636f64656664656e69656464747970656772656675736564'],
] satisfies [ImportAnswer, string][]) {
  messages.push([
    `answer of a steward, ${answer.type}`,
    encodeImportAnswer(answer),
    golden,
    (bytes) => parseImportAnswer(bytes),
    answer,
  ])
}
messages.push([
  'object found',
  encodeObjectAnswer(Uint8Array.of(7)),
  '0107',
  (bytes) => parseObjectAnswer(bytes),
  Buffer.of(7),
])
messages.push(['object coming', encodeObjectComing(), '02', (bytes) => parseObjectAnswer(bytes), 'coming'])
messages.push(['object missing', encodeObjectAnswer(undefined), '00', (bytes) => parseObjectAnswer(bytes), undefined])
messages.push([
  'wants',
  encodeWants([{ id: 258, kind: 'relay', priority: 'boot', waits: true, depth: 3, digest: a }]),
  `020100001903${a.slice(7)}`,
  (bytes) => parseWants(bytes),
  [{ id: 258, kind: 'relay', priority: 'boot', waits: true, depth: 3, digest: a }],
])
messages.push([
  'span question',
  encodeSpanQuestion({ table: a, spans: [16, 17], without: 'b', onBehalfOf: 'c', level: 2 }),
  'a5656c6576656c02657370616e73821011657461626c6578477368613235363a6361393738313132636131626264636166616332333162333961323364633464613738366566663831343763346537326239383037373835616665653438626267776974686f757461626a6f6e426568616c664f666163',
  (bytes) => parseSpanQuestion(bytes),
  { table: a, spans: [16, 17], without: 'b', onBehalfOf: 'c', level: 2 },
])
messages.push([
  'span answer',
  encodeSpanAnswer([
    { depth: 0, member: undefined },
    { depth: 2, member: 'b' },
  ]),
  'a166706c616365738282006082026162',
  (bytes) => parseSpanAnswer(bytes),
  [
    { depth: 0, member: undefined },
    { depth: 2, member: 'b' },
  ],
])
messages.push([
  'missing answer',
  encodeAnswerHeader(258, 'missing'),
  '0201000001',
  (bytes) => parseAnswer(bytes).status,
  'missing',
])
messages.push([
  'busy answer',
  Buffer.concat([encodeAnswerHeader(258, 'busy'), encodeHolders(['a', 'b'])]),
  '0201000002a167686f6c646572738261616162',
  (bytes) => parseAnswer(bytes).holders,
  ['a', 'b'],
])
messages.push([
  'answer that chunks are coming',
  encodeComing([258, 1, 2]),
  '02010000030100000002000000',
  (bytes) => [parseAnswer(bytes).id, ...parseAnswer(bytes).more],
  [258, 1, 2],
])
messages.push([
  'chunk answer',
  Buffer.concat([encodeAnswerHeader(1, 'chunk'), Buffer.of(9)]),
  '010000000009',
  (bytes) => parseAnswer(bytes).bytes,
  Buffer.of(9),
])

for (const [name, bytes, golden, parse, value] of messages) {
  test(`${name}: the bytes are those of the protocol, and read back`, () => {
    assert.equal(Buffer.from(bytes).toString('hex'), golden)
    assert.deepEqual(parse(Buffer.from(bytes)), value)
  })
}

test('messages that are too short, too long or of no known kind are invalid', () => {
  const invalid = (parse: () => unknown): void => assert.throws(parse, (error) => isP2pfsError(error, 'invalid'))
  invalid(() => parseWants(new Uint8Array(0)))
  invalid(() => parseWants(new Uint8Array(35)))
  invalid(() => parseWants(new Uint8Array(36 * 257)))
  invalid(() => parseAnswer(Uint8Array.of(1, 0, 0, 0)))
  invalid(() => parseAnswer(Uint8Array.of(1, 0, 0, 0, 9)))
  invalid(() => parseAnswer(Uint8Array.of(1, 0, 0, 0, 1, 5)))
  invalid(() => parseObjectAnswer(new Uint8Array(0)))
  invalid(() => parseRegionMessage(Uint8Array.of(0xa0)))
  invalid(() => parseImportRequest(encodeImportAnswer({ type: 'refused', code: 'denied' })))
  invalid(() => parseImportAnswer(encodeCbor({ type: 'other' })))
  invalid(() => parseImportAnswer(encodeCbor({ type: 'refused', code: 'tired' })))
  invalid(() => parseImportAnswer(encodeCbor({ type: 'progress', doneBytes: 2, totalBytes: 1, layers: [] })))
  invalid(() =>
    parseImportAnswer(encodeCbor({ type: 'progress', doneBytes: 0, totalBytes: 1, layers: ['sha256:abc'] })),
  )
  invalid(() =>
    parseImportAnswer(
      encodeCbor({ type: 'progress', doneBytes: 0, totalBytes: 1, layers: Array.from({ length: 257 }, () => a) }),
    ),
  )
  invalid(() => new Bitmap(9, Uint8Array.of(0, 0b10)))
  invalid(() => new Bitmap(9, Uint8Array.of(0)))
  invalid(() => parseDigest('sha256:abc'))
  for (const hostile of [
    { sketch: [2, 1] },
    { sketch: [1, 1] },
    { sketch: Array.from({ length: 65 }, (_, i) => i) },
    { seconds: 3601 },
    { chunks: Array.from({ length: 8193 }, () => a) },
  ]) {
    invalid(() => parseBootProfile(encodeBootProfile({ ...profile, ...hostile })))
  }
  invalid(() => parseObjectRequest(encodeObjectRequest({ kind: 'profile', rootfs: a, sketch: [2, 1] })))
  invalid(() => new ChunkTable([4097], digestToBytes(a)))
  invalid(() => new ChunkTable([4096, 4096], digestToBytes(a)))
})

test('a chunk table finds the chunk of every byte', () => {
  assert.deepEqual(
    [0, 4095, 4096, 12_287].map((offset) => table.indexOf(offset)),
    [0, 0, 1, 1],
  )
  assert.equal(table.sizeBytes, 12_288)
  assert.equal(table.digestAt(1), b)
})

test('a raw image has no metadata, and ends in its last block', () => {
  const parse = (change: Partial<RootfsManifest>): RootfsManifest =>
    parseRootfsManifest(encodeRootfsManifest({ ...rawImage, ...change }))
  assert.equal(parse({}).sizeBytes, rawBytes)
  for (const sizeBytes of [rawBytes - 5000, rawLayerBytes(0) + 8193])
    assert.throws(() => parse({ sizeBytes }), { code: 'invalid' })
  assert.throws(() => parse({ metadata: new ChunkTable([4096], digestToBytes(a)) }), { code: 'invalid' })
  const { sizeBytes: _, ...sizeless } = rawImage
  assert.throws(() => parseRootfsManifest(encodeRootfsManifest(sizeless)), { code: 'invalid' })
})
