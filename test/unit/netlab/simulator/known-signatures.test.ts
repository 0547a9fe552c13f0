import assert from 'node:assert/strict'
import { createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import { test } from 'node:test'
import { KnownSignatures } from '../../../../netlab/simulator/known-signatures.ts'

function setUp(): { signatures: KnownSignatures; verified: () => number } {
  let count = 0
  const counted = ((...given: Parameters<typeof verify>) => {
    count++
    return verify(...given)
  }) as typeof verify
  return { signatures: new KnownSignatures({ createPublicKey, verify: counted }), verified: () => count }
}

const pair = generateKeyPairSync('ed25519')
const other = generateKeyPairSync('ed25519')
const bytes = Buffer.from('a record')
const signature = sign(null, bytes, pair.privateKey)

test('a signature that was verified is not verified again', () => {
  const { signatures, verified } = setUp()
  const key = signatures.createPublicKey({ key: pair.publicKey.export({ format: 'jwk' }), format: 'jwk' })
  const again = signatures.createPublicKey({ key: pair.publicKey.export({ format: 'jwk' }), format: 'jwk' })
  assert.equal(signatures.verify(null, bytes, key, signature), true)
  assert.equal(signatures.verify(null, Buffer.from(bytes), again, Buffer.from(signature)), true)
  assert.equal(verified(), 1)
})

test('a known signature of other bytes, of another key or with another bit is wrong, and the right one stays right', () => {
  const { signatures } = setUp()
  const flipped = Buffer.from(signature)
  flipped[5]! ^= 1
  for (let i = 0; i < 2; i++) {
    assert.equal(signatures.verify(null, Buffer.from('another'), pair.publicKey, signature), false)
    assert.equal(signatures.verify(null, bytes, other.publicKey, signature), false)
    assert.equal(signatures.verify(null, bytes, pair.publicKey, flipped), false)
    assert.equal(signatures.verify(null, bytes, pair.publicKey, signature), true)
  }
})

test('bytes that change after they were verified are verified anew', () => {
  const { signatures } = setUp()
  const changing = Buffer.from(bytes)
  assert.equal(signatures.verify(null, changing, pair.publicKey, signature), true)
  changing[0]! ^= 1
  assert.equal(signatures.verify(null, changing, pair.publicKey, signature), false)
})
