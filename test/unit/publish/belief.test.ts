import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  judgeIndex,
  judgeName,
  maxClockSkewMs,
  newestFirst,
  settle,
  type NamePast,
  type SignedStatement,
  type Standing,
} from '../../../node/publish/belief.ts'
import type { IndexBelief } from '../../../node/model/belief.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'

const [a, b] = [digestOf(Buffer.from('a')), digestOf(Buffer.from('b'))]
const nowMs = 1_800_000_000_000
const modes = [
  { mode: 'default', areKeysListed: false },
  { mode: 'with keys listed', areKeysListed: true },
]
const claim = { statedAtMs: nowMs - 1000, manifestDigest: a }
const past = (isOwn: boolean, { manifestDigest = b, statedAtMs = nowMs - 5000 } = {}): NamePast => ({
  isOwn,
  manifestDigest,
  statedAtMs,
})

type Name = [by: Standing, past: NamePast | undefined, verdict: string]

/**
 * The rows of the table in docs/operating.md, "Trust", about names; each with what is said by default, and with keys
 * listed.
 */
const names: Record<string, { default: Name[]; listed: Name[] }> = {
  "tag: this host's own past": {
    default: [
      ['own', undefined, 'own-past'],
      ['own', past(true), 'own-past'],
      ['stranger', past(true, { manifestDigest: a }), 'own-past'],
    ],
    listed: [
      ['own', undefined, 'own-past'],
      ['member', past(true, { manifestDigest: a }), 'own-past'],
    ],
  },
  'tag: a statement of a listed key': {
    default: [],
    listed: [
      ['listed', undefined, 'listed-key'],
      ['listed', past(true), 'listed-key'],
      ['listed', past(false), 'listed-key'],
    ],
  },
  "tag: a connected member's own statement": {
    default: [
      ['member', undefined, 'member'],
      ['member', past(false), 'member'],
      ['member', past(true), 'past goes first'],
    ],
    listed: [
      ['member', undefined, 'key not listed'],
      ['member', past(true), 'key not listed'],
    ],
  },
  'tag: what is passed on from somebody else': {
    default: [
      ['stranger', undefined, 'not a member'],
      ['stranger', past(true), 'not a member'],
    ],
    listed: [['stranger', undefined, 'key not listed']],
  },
  'tag: a liar': {
    default: [
      ['liar', undefined, 'liar'],
      ['liar', past(false), 'liar'],
    ],
    listed: [['liar', undefined, 'liar']],
  },
}

for (const [row, cells] of Object.entries(names)) {
  for (const { mode, areKeysListed } of modes)
    test(`${row}, ${mode}`, () => {
      for (const [by, past, verdict] of areKeysListed ? cells.listed : cells.default)
        assert.deepEqual(Object.values(judgeName(by, claim, { areKeysListed, nowMs, past })), [verdict], by)
    })
}

test('tag: a statement that is older than one that was accepted is refused, whoever signed it', () => {
  const old = { ...claim, statedAtMs: nowMs - 5001 }
  for (const { areKeysListed } of modes)
    for (const by of ['own', 'listed', 'member', 'stranger'] as const)
      for (const isOwn of [true, false])
        assert.deepEqual(judgeName(by, old, { areKeysListed, nowMs, past: past(isOwn) }), { refused: 'older' })
})

test('tag: a statement from further in the future than clocks may differ is refused, whoever signed it', () => {
  const at = (statedAtMs: number): object =>
    judgeName('listed', { ...claim, statedAtMs }, { areKeysListed: true, nowMs, past: undefined })
  assert.deepEqual(at(nowMs + maxClockSkewMs), { believed: 'listed-key' })
  assert.deepEqual(at(nowMs + maxClockSkewMs + 1), { refused: 'in the future' })
  for (const { areKeysListed } of modes)
    for (const by of ['own', 'listed', 'member', 'stranger'] as const)
      assert.deepEqual(judgeName(by, { ...claim, statedAtMs: nowMs * 2 }, { areKeysListed, nowMs, past: undefined }), {
        refused: 'in the future',
      })
})

type Index = [by: Standing, told: boolean, verdict: string]

/** The rows about rootfs. */
const indexes: Record<string, { default: Index[]; listed: Index[] }> = {
  "rootfs: built here from the registry's layers": {
    default: [['own', false, 'built']],
    listed: [['own', false, 'built']],
  },
  'rootfs: made here from layer indexes that members told': {
    default: [['own', true, 'told-layers']],
    listed: [['own', true, 'told layers']],
  },
  'rootfs: a statement of a listed key': {
    default: [],
    listed: [
      ['listed', false, 'listed-key'],
      ['listed', true, 'told layers'],
    ],
  },
  'rootfs: a statement of a connected member': {
    default: [
      ['member', false, 'member'],
      ['member', true, 'member'],
    ],
    listed: [
      ['member', false, 'key not listed'],
      ['member', true, 'told layers'],
    ],
  },
  'rootfs: a statement of anybody else': {
    default: [
      ['stranger', false, 'not a member'],
      ['stranger', true, 'not a member'],
    ],
    listed: [['stranger', false, 'key not listed']],
  },
  'rootfs: a liar': {
    default: [
      ['liar', false, 'liar'],
      ['liar', true, 'liar'],
    ],
    listed: [['liar', false, 'liar']],
  },
}

for (const [row, cells] of Object.entries(indexes)) {
  for (const { mode, areKeysListed } of modes)
    test(`${row}, ${mode}`, () => {
      for (const [by, told, verdict] of areKeysListed ? cells.listed : cells.default)
        assert.deepEqual(Object.values(judgeIndex(by, { told }, { areKeysListed })), [verdict], `${by}, told: ${told}`)
    })
}

function statement(
  maker: string,
  rootfsDigest: Digest,
  { manifestDigest = a, format = 'ext4' }: { manifestDigest?: Digest; format?: RootfsFormat } = {},
): SignedStatement {
  return { manifestDigest, format, rootfsDigest, attestation: { key: maker, signature: new Uint8Array(64) } }
}
const by = (
  belief: IndexBelief,
  ...made: Parameters<typeof statement>
): { claim: SignedStatement; belief: IndexBelief } => ({ claim: statement(...made), belief })

test('rootfs: of members that contradict each other none is believed', () => {
  const liars = [by('member', 'x', a), by('member', 'y', b), by('member', 'z', a)]
  const others = [
    by('member', 'x', b, { manifestDigest: b }),
    by('member', 'y', b, { manifestDigest: b }),
    by('member', 'y', b, { format: 'erofs' }),
  ]
  const { undisputed, disputes } = settle([...liars, ...others])
  assert.deepEqual(
    undisputed,
    others.map(({ claim }) => claim),
  )
  assert.deepEqual(disputes, [liars.map(({ claim }) => claim)])
})

test('rootfs: a member that contradicts a listed key, or this host, is not believed, and disputes nothing', () => {
  for (const sure of ['listed-key', 'built'] as const) {
    const right = by(sure, 'x', a)
    const { undisputed, disputes } = settle([by('member', 'y', b), right, by('told-layers', 'z', b)])
    assert.deepEqual([undisputed, disputes], [[right.claim], []])
  }
})

test('tag: the newest of several statements comes first, in whatever order they come', () => {
  const of = (statedAtMs: number): { record: { nameStatement: { statedAtMs: number } } } => ({
    record: { nameStatement: { statedAtMs } },
  })
  assert.deepEqual(newestFirst([of(2), of(3), of(1)]), [of(3), of(2), of(1)])
})
