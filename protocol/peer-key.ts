import { P2pfsError } from './errors.ts'

/** Alphabet of base58btc, in the order of the digits' values. */
const digits = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
/** A peer id of an Ed25519 key is a zero, which base58btc writes as `1`, and a number of 37 bytes: 51 digits. */
const idLength = 52
/**
 * The bytes before the key in a peer id, without the zero: the rest of an identity multihash of 36 bytes, and a protobuf
 * with the key type Ed25519 and 32 bytes (libp2p, specs/peer-ids).
 */
const keyPrefix = '2408011220'

/**
 * The 32 bytes of an Ed25519 public key that is named by its peer id. libp2p's own function takes 100 ms to load.
 * @throws invalid for anything but the canonical peer id of an Ed25519 key
 */
export function publicKeyOf(peerId: string): Uint8Array {
  const hex = peerId.length === idLength && peerId.startsWith('1') ? hexOf(peerId) : undefined
  if (hex?.length === keyPrefix.length + 64 && hex.startsWith(keyPrefix))
    return Uint8Array.from(Buffer.from(hex.slice(keyPrefix.length), 'hex'))
  throw new P2pfsError(
    'invalid',
    `not a key: ${JSON.stringify(peerId.slice(0, 80))}; it is a peer id, as p2pfs status shows it: 12D3KooW...`,
  )
}

/** The number, without leading zeros; undefined where a character is no digit. */
function hexOf(base58: string): string | undefined {
  let value = 0n
  for (const character of base58) {
    const digit = digits.indexOf(character)
    if (digit < 0) return undefined
    value = value * 58n + BigInt(digit)
  }
  return value.toString(16)
}

/** @throws invalid for anything but the canonical peer id of an Ed25519 key */
export function parseKey(text: string): string {
  publicKeyOf(text)
  return text
}
