import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeCbor } from '../../../protocol/cbor.ts'
import {
  encodeRegistryWord,
  maxRegistryWordBytes,
  parseRegistryWord,
  registryKey,
} from '../../../protocol/messages/registry-word.ts'

test('a registry word has these bytes, and a registry this key', () => {
  const word = { isSilent: true, usualMs: 250 }
  const bytes = encodeRegistryWord(word)
  assert.equal(Buffer.from(bytes).toString('hex'), 'a26673696c656e74f567757375616c4d7318fa')
  assert.deepEqual(parseRegistryWord(bytes), word)
  const none = { isSilent: false, usualMs: undefined }
  assert.deepEqual(parseRegistryWord(encodeRegistryWord(none)), none)
  assert.ok(encodeRegistryWord({ isSilent: false, usualMs: 1e9 }).length <= maxRegistryWordBytes)
  assert.equal(registryKey('docker.io'), 'sha256:ad529090b32e101e8b201192ceb24be5b6a0b13ddb88e3cf4f969bebf3d3a148')
})

test('a registry word that is none is refused', () => {
  for (const wrong of [
    {},
    { silent: 1 },
    { silent: true, usualMs: -1 },
    { silent: true, usualMs: 0.5 },
    { silent: true, usualMs: 60_001 },
    7,
  ])
    assert.throws(() => parseRegistryWord(encodeCbor(wrong)), { code: 'invalid' })
  assert.throws(() => parseRegistryWord(new Uint8Array(0)), { code: 'invalid' })
})
