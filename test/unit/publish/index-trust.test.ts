import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLog } from '../../../node/base/log.ts'
import { IndexTrust } from '../../../node/publish/index-trust.ts'
import type { Lies } from '../../../node/publish/lies.ts'
import { attest } from '../../../protocol/attestation.ts'
import { digestOf } from '../../../protocol/digest.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { stateName } from '../../../protocol/name-statement.ts'
import { noLies } from '../../support/no-lies.ts'
import { testKey } from '../../support/test-key.ts'

const [own, member, stranger, other] = [await testKey(1), await testKey(2), await testKey(3), await testKey(4)]
const nowMs = 1_800_000_000_000

async function recordBy(
  maker: typeof own,
  {
    statedBy = maker,
    told = false,
    reference = 'r',
  }: { statedBy?: typeof own; told?: boolean; reference?: string } = {},
): Promise<ImageRecord> {
  const manifest = '{}'
  const statement = {
    manifestDigest: digestOf(Buffer.from(manifest)),
    format: 'ext4',
    rootfsDigest: digestOf(Buffer.from('rootfs')),
  } as const
  const name = { reference, platform: 'p' }
  return {
    ...statement,
    ...name,
    manifest,
    attestation: await attest(statement, maker, { told }),
    nameStatement: await stateName({ ...statement, ...name }, nowMs, statedBy),
  }
}

/** The trust of a host with one member, and its log. */
function host(keys: readonly string[], lies: Pick<Lies, 'isLiar' | 'isContradicted'> = noLies) {
  const lines: string[] = []
  const trust = new IndexTrust(
    {
      own: own.key,
      membership: { roster: new Map([[member.key, {}]]) },
      lies,
      log: createLog('warn', (line) => void lines.push(line), {}),
    },
    { keys, now: () => nowMs },
  )
  return { trust, lines }
}

test('by default both claims of connected members are believed, whoever passes them on, and of nobody else', async () => {
  const { trust, lines } = host([])
  const judge = async (maker: typeof own, statedBy = maker): Promise<unknown> =>
    trust.judgeFromPeer(await recordBy(maker, { statedBy }), member.key, undefined)
  assert.deepEqual(await judge(member), { name: 'member', index: 'member' })
  assert.deepEqual(await judge(own), { name: 'own-past', index: 'built' })
  assert.equal(lines.length, 0)
  assert.deepEqual(await judge(stranger), { name: undefined, index: undefined })
  assert.match(lines.join(), new RegExp(`not accepted.*${stranger.key}.*--trust-index-key`))
  assert.deepEqual(await judge(member, stranger), { name: undefined, index: 'member' })
  assert.deepEqual(await judge(stranger, member), { name: 'member', index: undefined })
})

test('with keys listed those and the own key are believed, and no member', async () => {
  const { trust } = host([stranger.key])
  const judge = async (maker: typeof own, told = false): Promise<unknown> =>
    trust.judgeFromPeer(await recordBy(maker, { told }), member.key, undefined)
  assert.deepEqual(await judge(own), { name: 'own-past', index: 'built' })
  assert.deepEqual(await judge(stranger), { name: 'listed-key', index: 'listed-key' })
  assert.deepEqual(await judge(member), { name: undefined, index: undefined })
  assert.deepEqual(await judge(stranger, true), { name: 'listed-key', index: undefined })
  const { attestation, ...statement } = await recordBy(member)
  assert.equal(trust.judgePublished(statement, attestation, 'r'), undefined)
  const listed = await recordBy(stranger)
  assert.equal(trust.judgePublished(listed, listed.attestation, 'r'), 'listed-key')
})

test('a record of which anything was changed after it was signed is not believed', async () => {
  const { trust, lines } = host([])
  const record = await recordBy(member)
  const changes: Partial<ImageRecord>[] = [
    { reference: 'other' },
    { platform: 'other' },
    { format: 'erofs' },
    { manifest: '{"layers":[]}' },
    { rootfsDigest: digestOf(Buffer.from('forged')) },
    { nameStatement: { ...record.nameStatement, statedAtMs: nowMs + 1 } },
    { nameStatement: { ...record.nameStatement, key: own.key } },
    { attestation: { ...record.attestation, key: own.key } },
    { attestation: { ...record.attestation, told: true } },
  ]
  for (const change of changes) {
    lines.length = 0
    assert.deepEqual(trust.judgeFromPeer({ ...record, ...change }, member.key, undefined), {
      name: undefined,
      index: undefined,
    })
    assert.match(lines.join(), /peer sends an image record with a wrong signature/)
  }
})

test('a publication is believed by its maker, who must be a connected member, and by its signature', async () => {
  const { trust, lines } = host([])
  for (const [maker, belief] of [
    [own, 'built'],
    [member, 'member'],
    [stranger, undefined],
  ] as const) {
    const made = await recordBy(maker)
    assert.equal(trust.judgePublished(made, made.attestation, 'r'), belief)
  }
  const byOwn = await recordBy(own)
  const forged = { ...byOwn, rootfsDigest: digestOf(Buffer.from('forged')) }
  assert.equal(trust.judgePublished(forged, byOwn.attestation, 'r'), undefined)
  assert.match(lines.join(), /publication is not signed by the key that it names/)
})

test('what was believed stays believed when the member has left, and is marked; not when keys are listed', async () => {
  const record = await recordBy(stranger)
  assert.deepEqual(host([]).trust.judgeStored(record), {
    name: 'member',
    namedBy: stranger.key,
    index: 'member',
    maker: stranger.key,
  })
  assert.equal(host([other.key]).trust.judgeStored(record), undefined)
  const toldByOwn = await recordBy(own, { told: true })
  assert.deepEqual(host([]).trust.judgeStored(toldByOwn), { name: 'own-past', index: 'told-layers' })
  assert.equal(host([other.key]).trust.judgeStored(toldByOwn), undefined)
  assert.deepEqual(host([other.key]).trust.judgeStored(await recordBy(own, { statedBy: other })), {
    name: 'listed-key',
    namedBy: other.key,
    index: 'built',
  })
})

test('the log says what is ignored when it is asked for, and not whenever somebody looks', async () => {
  const { trust, lines } = host([other.key])
  const record = await recordBy(member)
  assert.equal(trust.beliefIn(record), undefined)
  assert.equal(trust.believes(record, record.attestation, { isStored: true }), false)
  assert.equal(lines.length, 0)
  assert.equal(trust.judgeStored(record), undefined)
  assert.equal(lines.length, 1)
})

test('a digest that is that of the image manifest stands for it, whoever says so', async () => {
  const reference = `host/r@${digestOf(Buffer.from('{}'))}`
  const record = await recordBy(member, { statedBy: stranger, reference })
  for (const keys of [[], [member.key]])
    assert.equal(host(keys).trust.judgeFromPeer(record, member.key, undefined).name, 'digest')
  assert.equal(host([]).trust.judgeStored(record)?.name, 'digest')
})

test('a liar is believed neither as a member nor as a listed key, in nothing; and his lie from nobody', async () => {
  const liar = { isLiar: (key: string) => key === member.key, isContradicted: () => false }
  for (const keys of [[], [member.key]]) {
    const { trust, lines } = host(keys, liar)
    const record = await recordBy(member)
    assert.deepEqual(trust.judgeFromPeer(record, member.key, undefined), { name: undefined, index: undefined })
    assert.equal(trust.judgePublished(record, record.attestation, 'r'), undefined)
    assert.equal(trust.judgeStored(record), undefined)
    assert.equal(trust.accepts(member.key), false)
    assert.match(lines.join(), /its maker has signed a false one before/)
  }
  const lie = { isLiar: () => false, isContradicted: () => true }
  for (const maker of [own, member])
    assert.equal(host([], lie).trust.judgeFromPeer(await recordBy(maker), member.key, undefined).index, undefined)
})
