import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import type { ICryptoInterface } from '@chainsafe/libp2p-noise'
import { defaultCrypto } from '@chainsafe/libp2p-noise/crypto'
import { Uint8ArrayList } from 'uint8arraylist'

const algorithm = 'chacha20-poly1305'
/** Size of the tag behind each message (bytes): RFC 8439, section 2.8. */
const tagBytes = 16
/**
 * Up to this size libp2p's WebAssembly takes less time (bytes): a cipher of OpenSSL takes 5 µs to begin with, as long as
 * WebAssembly takes for 512 bytes.
 */
const smallMessageBytes = 512

type Cipher = ICryptoInterface['chaCha20Poly1305Encrypt']
type Decipher = ICryptoInterface['chaCha20Poly1305Decrypt']
type Bytes = Parameters<Cipher>[0]

/**
 * The cryptography of noise. libp2p's own makes a key object of OpenSSL for each message, which takes 14 µs of the 20 µs
 * that a message of 4 KiB costs. This one makes it once for each key, and keeps it as long as the connection has the key.
 * Data that is not authentic makes it throw.
 */
export function noiseCrypto({ smallBytes = smallMessageBytes }: { smallBytes?: number } = {}): ICryptoInterface {
  const keys = new WeakMap<Uint8Array, KeyObject>()
  const keyOf = (bytes: Uint8Array): KeyObject => {
    const known = keys.get(bytes)
    if (known !== undefined) return known
    const key = createSecretKey(bytes)
    keys.set(bytes, key)
    return key
  }
  const encrypt: Cipher = (plaintext, nonce, ad, k) => {
    const cipher = createCipheriv(algorithm, keyOf(k), nonce, { authTagLength: tagBytes })
    cipher.setAAD(ad, { plaintextLength: plaintext.byteLength })
    const pieces = piecesOf(plaintext).map((piece) => cipher.update(piece))
    // It is a stream cipher: nothing is left.
    cipher.final()
    return new Uint8ArrayList(...pieces, cipher.getAuthTag())
  }
  const decrypt: Decipher = (ciphertext, nonce, ad, k) => {
    const textBytes = ciphertext.byteLength - tagBytes
    if (textBytes < 0) throw new RangeError('message is shorter than its tag')
    const decipher = createDecipheriv(algorithm, keyOf(k), nonce, { authTagLength: tagBytes })
    decipher.setAAD(ad, { plaintextLength: textBytes })
    decipher.setAuthTag(ciphertext.subarray(textBytes))
    const pieces = piecesOf(ciphertext, textBytes).map((piece) => decipher.update(piece))
    decipher.final()
    return pieces.length === 1 ? pieces[0]! : new Uint8ArrayList(...pieces)
  }
  const isSmall = ({ byteLength }: Bytes): boolean => byteLength <= smallBytes
  return {
    ...defaultCrypto,
    chaCha20Poly1305Encrypt: (plaintext, ...rest) =>
      isSmall(plaintext) ? defaultCrypto.chaCha20Poly1305Encrypt(plaintext, ...rest) : encrypt(plaintext, ...rest),
    chaCha20Poly1305Decrypt: (ciphertext, ...rest) =>
      isSmall(ciphertext) ? defaultCrypto.chaCha20Poly1305Decrypt(ciphertext, ...rest) : decrypt(ciphertext, ...rest),
  }
}

/** Views of the first bytes. */
function piecesOf(bytes: Bytes, lengthBytes = bytes.byteLength): Uint8Array[] {
  return bytes instanceof Uint8Array ? [bytes.subarray(0, lengthBytes)] : [...bytes.sublist(0, lengthBytes)]
}
