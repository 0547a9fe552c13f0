import { noise, type NoiseComponents } from '@chainsafe/libp2p-noise'
import type { ConnectionEncrypter, MessageStream, SecureConnectionOptions } from '@libp2p/interface'
import { noiseCrypto } from './noise-crypto.ts'
import type { RegionGate } from './region-gate.ts'

/** Noise whose handshake is bound to the proofs that were exchanged on the same connection before. */
export function regionNoise(
  gate: Pick<RegionGate, 'prologueOf'>,
): (components: NoiseComponents) => ConnectionEncrypter {
  return (components) => {
    const crypto = noiseCrypto()
    // The prologue is a part of libp2p's noise for good, so each connection gets a noise of its own.
    const noiseOf = (connection: MessageStream): ConnectionEncrypter =>
      noise({ prologueBytes: gate.prologueOf(connection), crypto })(components)
    return {
      protocol: noise()(components).protocol,
      secureInbound: async (connection: MessageStream, options?: SecureConnectionOptions) =>
        await noiseOf(connection).secureInbound(connection, options),
      secureOutbound: async (connection: MessageStream, options?: SecureConnectionOptions) =>
        await noiseOf(connection).secureOutbound(connection, options),
    }
  }
}
