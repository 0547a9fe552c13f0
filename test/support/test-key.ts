import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import type { Signer } from '../../protocol/attestation.ts'

/** A signer whose key is the same for the same seed. @param seed 0 to 255 */
export async function testKey(seed: number): Promise<Signer> {
  const key = await generateKeyPairFromSeed('Ed25519', new Uint8Array(32).fill(seed))
  return { key: peerIdFromPrivateKey(key).toString(), sign: async (bytes) => await key.sign(bytes) }
}
