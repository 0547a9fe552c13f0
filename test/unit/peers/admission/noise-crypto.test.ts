import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { noise, type ICryptoInterface, type NoiseComponents } from '@chainsafe/libp2p-noise'
import { defaultCrypto, pureJsCrypto } from '@chainsafe/libp2p-noise/crypto'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { ConnectionEncrypter, MessageStream } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddrConnectionPair } from '@libp2p/utils'
import { Uint8ArrayList } from 'uint8arraylist'
import { noiseCrypto } from '../../../../node/peers/admission/noise-crypto.ts'

/** Nothing goes to WebAssembly. */
const openSsl = noiseCrypto({ smallBytes: 0 })
const key = new Uint8Array(32).map((_, i) => 0x80 + i)
const nonce = Buffer.from('070000004041424344454647', 'hex')
const ad = Buffer.from('50515253c0c1c2c3c4c5c6c7', 'hex')

/** RFC 8439, section 2.8.2. */
const vector = {
  text: Buffer.from(
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
  ),
  cipher: Buffer.from(
    'd31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29' +
      '05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b61' +
      '161ae10b594f09e26a7e902ecbd0600691',
    'hex',
  ),
}

/** The bytes in pieces of these sizes, and the rest. */
function inPieces(bytes: Uint8Array, sizes: readonly number[]): Uint8ArrayList {
  const list = new Uint8ArrayList()
  let at = 0
  for (const size of [...sizes, bytes.length]) {
    if (at < bytes.length) list.append(bytes.subarray(at, at + size))
    at += size
  }
  return list
}

test('encrypts and decrypts the vector of RFC 8439', () => {
  const { text, cipher } = vector
  assert.deepEqual(Buffer.from(openSsl.chaCha20Poly1305Encrypt(text, nonce, ad, key).subarray()), cipher)
  assert.deepEqual(Buffer.from(openSsl.chaCha20Poly1305Decrypt(cipher, nonce, ad, key).subarray()), text)
})

for (const sizeBytes of [0, 1, 495, 496, 497, 512, 513, 1_199, 1_200, 65_519]) {
  test(`a message of ${sizeBytes} bytes is the same for libp2p's own cryptography, in one piece or in several`, () => {
    const text = randomBytes(sizeBytes)
    const expected = Buffer.from(pureJsCrypto.chaCha20Poly1305Encrypt(text, nonce, ad, key).subarray())
    for (const crypto of [openSsl, noiseCrypto(), defaultCrypto]) {
      for (const bytes of [text, inPieces(text, [12, 500, 20_000])])
        assert.deepEqual(Buffer.from(crypto.chaCha20Poly1305Encrypt(bytes, nonce, ad, key).subarray()), expected)
      // The second ends within the tag.
      for (const sizes of [[], [sizeBytes + 3], [2, 700, 20_000]]) {
        // libp2p's may decrypt in place.
        const bytes = inPieces(Buffer.from(expected), sizes)
        assert.deepEqual(Buffer.from(crypto.chaCha20Poly1305Decrypt(bytes, nonce, ad, key).subarray()), text)
      }
    }
  })
}

test('what was changed on the way, or is cut off, is refused', () => {
  const text = randomBytes(2_000)
  const right = Buffer.from(openSsl.chaCha20Poly1305Encrypt(text, nonce, ad, key).subarray())
  const flipped = (bytes: Uint8Array, at: number): Uint8Array => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte))
  const refuses = (...wrong: Parameters<ICryptoInterface['chaCha20Poly1305Decrypt']>): void =>
    assert.throws(() => openSsl.chaCha20Poly1305Decrypt(...wrong))
  refuses(flipped(right, 0), nonce, ad, key)
  refuses(flipped(right, 1_999), nonce, ad, key)
  for (let i = 2_000; i < right.length; i++) refuses(flipped(right, i), nonce, ad, key)
  refuses(right, flipped(nonce, 4), ad, key)
  refuses(right, nonce, flipped(ad, 0), key)
  refuses(right, nonce, new Uint8Array(), key)
  refuses(right, nonce, ad, flipped(key, 0))
  for (const length of [0, 1, 15, 16, 1_999, 2_015]) refuses(right.subarray(0, length), nonce, ad, key)
  assert.deepEqual(Buffer.from(openSsl.chaCha20Poly1305Decrypt(right, nonce, ad, key).subarray()), text)
})

test('keys of connections that run side by side do not mix', () => {
  const text = randomBytes(1_000)
  const others = [key, randomBytes(32), randomBytes(32)]
  for (const k of [...others, ...others]) {
    const expected = Buffer.from(pureJsCrypto.chaCha20Poly1305Encrypt(text, nonce, ad, k).subarray())
    assert.deepEqual(Buffer.from(openSsl.chaCha20Poly1305Encrypt(text, nonce, ad, k).subarray()), expected)
  }
})

async function encrypter(crypto?: ICryptoInterface): Promise<ConnectionEncrypter> {
  const privateKey = await generateKeyPair('Ed25519')
  const log = Object.assign(() => undefined, { trace: () => undefined, error: () => undefined, enabled: false })
  const components = {
    privateKey,
    peerId: peerIdFromPrivateKey(privateKey),
    logger: { forComponent: () => log },
    upgrader: { getStreamMuxers: () => new Map() },
  }
  return noise(crypto === undefined ? {} : { crypto })(components as unknown as NoiseComponents)
}

/** All that comes, until it is so much. */
async function received(stream: MessageStream, sizeBytes: number): Promise<Buffer> {
  const parts: Uint8Array[] = []
  let leftBytes = sizeBytes
  for await (const data of stream) {
    parts.push(data.subarray())
    leftBytes -= data.byteLength
    if (leftBytes <= 0) break
  }
  return Buffer.concat(parts)
}

for (const [ours, whose] of [
  [true, 'this one dials'],
  [false, "libp2p's own dials"],
] as const) {
  test(`hosts with this cryptography and with libp2p's own understand each other: ${whose}`, async () => {
    const [outbound, inbound] = multiaddrConnectionPair()
    const dialler = await encrypter(ours ? noiseCrypto() : undefined)
    const listener = await encrypter(ours ? undefined : noiseCrypto())
    const [a, b] = await Promise.all([dialler.secureOutbound(outbound), listener.secureInbound(inbound)])
    for (const [from, to] of [
      [a.connection, b.connection],
      [b.connection, a.connection],
    ] as const) {
      const sent = [10, 600, 5_000, 200_000].map((sizeBytes) => randomBytes(sizeBytes))
      const all = Buffer.concat(sent)
      const receiving = received(to, all.length)
      for (const bytes of sent) from.send(bytes)
      assert.deepEqual(await receiving, all)
    }
  })
}
