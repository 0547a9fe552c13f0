import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { errorCodes, P2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { pushedRawLayerType } from '../../../protocol/raw-image.ts'
import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'
import type { PullPolicy } from '../../../node/model/image.ts'
import {
  chooseAnswerer,
  fitOf,
  formatOf,
  judgeFailure,
  recordByDigest,
  searchOrder,
  type Answerer,
} from '../../../node/images/decisions.ts'
import { parseReference, type Reference } from '../../../node/registry/reference.ts'

const manifestDigest = digestOf(Buffer.from('manifest'))
const otherDigest = digestOf(Buffer.from('other'))
const tag = parseReference('host.test/app:1')

test('pull policy, record and silence of the registry decide who says what a tag stands for', () => {
  const partial = { isWholeHere: false, isOnMembersWord: false }
  const whole = { isWholeHere: true, isOnMembersWord: false }
  const told = { isWholeHere: true, isOnMembersWord: true }
  const fresh = { ...told, isFresh: true }
  const table: [Exclude<PullPolicy, 'auto'>, typeof whole | undefined, 'answers' | 'silent', Answerer][] = [
    ['newer', undefined, 'answers', 'registry'],
    ['newer', undefined, 'silent', 'registry'],
    ['newer', partial, 'answers', 'registry'],
    ['newer', partial, 'silent', 'record'],
    ['newer', whole, 'answers', 'record'],
    ['newer', told, 'answers', 'registry'],
    ['newer', told, 'silent', 'record'],
    ['newer', fresh, 'answers', 'record'],
    ['always', fresh, 'answers', 'registry'],
    ['missing', told, 'answers', 'record'],
    ['never', told, 'answers', 'record'],
    ['always', undefined, 'answers', 'registry'],
    ['always', partial, 'silent', 'registry'],
    ['always', whole, 'answers', 'registry'],
    ['missing', undefined, 'answers', 'registry'],
    ['missing', partial, 'answers', 'record'],
    ['never', undefined, 'answers', 'nobody'],
    ['never', partial, 'answers', 'record'],
  ]
  for (const [pull, record, registry, answerer] of table)
    assert.equal(
      chooseAnswerer(tag, pull, record, registry === 'silent'),
      answerer,
      `${pull}, ${JSON.stringify(record)}, registry ${registry}`,
    )
})

test('the registry is never asked what a digest or a local name stands for if there is a record', () => {
  const known = { isWholeHere: false, isOnMembersWord: false }
  for (const text of [`host.test/app@${manifestDigest}`, 'local:app']) {
    const reference = parseReference(text)
    for (const pull of ['newer', 'always', 'missing', 'never'] as const)
      assert.equal(chooseAnswerer(reference, pull, known, false), 'record', `${text}, ${pull}`)
    assert.equal(chooseAnswerer(reference, 'always', undefined, false), 'registry', text)
  }
  assert.equal(chooseAnswerer(parseReference('oci:/images:1'), 'newer', known, false), 'registry')
  // The digest may be that of an index: which image it names for a platform is a member's word.
  const told = { isWholeHere: true, isOnMembersWord: true }
  assert.equal(chooseAnswerer(parseReference(`host.test/app@${manifestDigest}`), 'newer', told, false), 'registry')
  assert.equal(chooseAnswerer(parseReference('local:app'), 'newer', told, false), 'record')
})

test('the last known image is used if the registry is away, refuses or has lost the tag', () => {
  const verdicts = new Map(
    errorCodes.map((code) => {
      const { useLastKnown, isSilence } = judgeFailure(new P2pfsError(code, ''))
      return [code, `${useLastKnown ? 'last known' : 'error'}${isSilence ? ', silence' : ''}`]
    }),
  )
  assert.deepEqual(Object.fromEntries(verdicts), {
    invalid: 'error',
    missing: 'last known',
    timeout: 'last known, silence',
    busy: 'last known, silence',
    unavailable: 'last known, silence',
    denied: 'last known',
    unsupported: 'error',
    conflict: 'error',
    closed: 'error',
  })
  assert.deepEqual(judgeFailure(new TypeError()), { useLastKnown: false, isSilence: false })
})

test("a member's word does not stand against a registry that refuses, or has no such tag", () => {
  const stands = errorCodes.filter(
    (code) => judgeFailure(new P2pfsError(code, ''), { isOnMembersWord: true }).useLastKnown,
  )
  assert.deepEqual(stands.toSorted(), ['busy', 'timeout', 'unavailable'])
})

test('records are looked for on this host first, and in the wanted format first', () => {
  assert.deepEqual(
    searchOrder('erofs', 'registry').map(({ place, format }) => `${place} ${format}`),
    ['host erofs', 'host ext4', 'host raw', 'region erofs', 'region ext4'],
  )
})

test('a raw image is found whatever format is asked for, and nothing else is where a raw one is', () => {
  const order = (format: RootfsFormat, kind: Reference['kind']): string[] =>
    searchOrder(format, kind).map(({ place, format }) => `${place} ${format}`)
  assert.deepEqual(order('ext4', 'local').slice(-3), ['region ext4', 'region erofs', 'region raw'])
  assert.deepEqual(order('raw', 'registry'), ['host raw', 'region raw'])
})

test('the registry says which images are raw', () => {
  const image = (...mediaTypes: string[]): Parameters<typeof formatOf>[0] => ({
    reference: 'host.test/app:1',
    layers: mediaTypes.map((mediaType) => ({ mediaType })),
  })
  const tar = 'application/vnd.oci.image.layer.v1.tar'
  assert.equal(formatOf(image(tar), 'erofs'), 'erofs')
  assert.equal(formatOf(image(pushedRawLayerType, pushedRawLayerType), 'erofs'), 'raw')
  assert.throws(() => formatOf(image(tar), 'raw'), { code: 'invalid', message: /host.test\/app:1 is no raw image/ })
  assert.throws(() => formatOf(image(tar, pushedRawLayerType), 'ext4'), { code: 'invalid' })
})

const record: ImageRecord = {
  reference: 'host.test/app:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest,
  manifest: '{}',
  rootfsDigest: otherDigest,
  attestation: { key: 'maker', signature: new Uint8Array(64) },
  nameStatement: { key: 'stater', signature: new Uint8Array(64), statedAtMs: 1 },
}

test('a record fits the image that was asked for, and the manifest that the registry names', () => {
  assert.equal(fitOf(record, record, undefined), 'fits')
  assert.equal(fitOf(record, record, manifestDigest), 'fits')
  assert.equal(fitOf(record, record, otherDigest), 'other manifest')
  for (const change of [{ reference: 'host.test/app:2' }, { platform: 'linux/arm64' }, { format: 'erofs' }] as const)
    assert.equal(fitOf(record, { ...record, ...change }, undefined), 'other image')
})

test('an image that is asked for by its digest is found by a tag of the same repository', () => {
  const name = { ...record, reference: `host.test/app@${manifestDigest}` }
  assert.deepEqual(recordByDigest([record], name), { ...record, reference: name.reference })
  assert.equal(recordByDigest([record], { ...name, reference: `host.test/app@${otherDigest}` }), undefined)
  assert.equal(recordByDigest([record], { ...name, reference: `host.test/other@${manifestDigest}` }), undefined)
  assert.equal(recordByDigest([record], { ...name, format: 'erofs' }), undefined)
  assert.equal(recordByDigest([record], record), undefined)
})
