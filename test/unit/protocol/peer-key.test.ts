import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id'
import { parseKey, publicKeyOf } from '../../../protocol/peer-key.ts'

const idOf = (key: Uint8Array): string => peerIdFromPublicKey(publicKeyFromRaw(key)).toString()

/** The key as libp2p reads it, if this is the canonical peer id of an Ed25519 key. */
function keyForLibp2p(text: string): Buffer | undefined {
  try {
    const id = peerIdFromString(text)
    return id.type === 'Ed25519' && id.toString() === text ? Buffer.from(id.publicKey.raw) : undefined
  } catch {
    return undefined
  }
}

function keyForUs(text: string): Buffer | undefined {
  try {
    return Buffer.from(publicKeyOf(parseKey(text)))
  } catch {
    return undefined
  }
}

test('an Ed25519 key is what libp2p reads from its peer id', () => {
  const keys = [new Uint8Array(32), new Uint8Array(32).fill(255), ...Array.from({ length: 200 }, () => randomBytes(32))]
  for (const key of keys) assert.deepEqual(Buffer.from(publicKeyOf(idOf(key))), Buffer.from(key))
})

test('a text that libp2p does not take as such an id is refused, and no other', () => {
  const id = idOf(randomBytes(32))
  const changed = Array.from(id, (_, i) => i).flatMap((i) =>
    ['1', 'A', 'z', '0', 'l', 'é', ' '].map((digit) => id.slice(0, i) + digit + id.slice(i + 1)),
  )
  const others = ['', '1', id.slice(1), id.slice(0, -1), `1${id}`, `${id}1`, ` ${id}`, id.toLowerCase(), 'z'.repeat(52)]
  const rsa = 'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N'
  const secp256k1 = '16Uiu2HAkxSnqYGDU5iZTQrZyAcQDQHKrZqSNPBmKFifEagS2XfrL'
  const cid = 'bafzaajaiaejca24q7uhr7adt3rtai4ixtn2r3q72kccwvwzg6wnfetwqyvrs5n2d'
  for (const text of [...changed, ...others, rsa, secp256k1, cid])
    assert.deepEqual(keyForUs(text), keyForLibp2p(text), text)
})
