import { noise, type NoiseComponents } from '@chainsafe/libp2p-noise'
import type { ConnectionEncrypter, MessageStream, SecureConnectionOptions } from '@libp2p/interface'
import { noiseCrypto } from './noise-crypto.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { RegionGate } from './region-gate.ts'

/** The encryption that guests negotiate: libp2p names it on each connection, so that no guest is taken for a member. */
export const guestNoiseProtocol = '/p2pfs/guest-noise/1'

/**
 * Noise whose handshake is bound to the proofs that were exchanged on the same connection before. With `asGuest`, that
 * of guests: each accepts those who have proved it, and no others.
 */
export function regionNoise(
  gate: Pick<RegionGate, 'prologueOf' | 'isGuest'>,
  { asGuest = false }: { asGuest?: boolean } = {},
): (components: NoiseComponents) => ConnectionEncrypter {
  return (components) => {
    const crypto = noiseCrypto()
    // The prologue is a part of libp2p's noise for good, so each connection gets a noise of its own.
    const noiseOf = (connection: MessageStream): ConnectionEncrypter =>
      noise({ prologueBytes: gate.prologueOf(connection), crypto })(components)
    return {
      protocol: asGuest ? guestNoiseProtocol : noise()(components).protocol,
      secureInbound: async (connection: MessageStream, options?: SecureConnectionOptions) => {
        if (gate.isGuest(connection) !== asGuest)
          throw new P2pfsError('denied', 'the other side has proved another key than this protocol is for')
        return await noiseOf(connection).secureInbound(connection, options)
      },
      secureOutbound: async (connection: MessageStream, options?: SecureConnectionOptions) =>
        await noiseOf(connection).secureOutbound(connection, options),
    }
  }
}
