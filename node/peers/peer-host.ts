import { identify } from '@libp2p/identify'
import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { ping } from '@libp2p/ping'
import { createLibp2p } from 'libp2p'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RegionGate } from './admission/region-gate.ts'
import { regionNoise } from './admission/region-noise.ts'
import { regionTcp } from './admission/region-tcp.ts'
import { limits } from './limits.ts'
import { regionYamux } from './region-yamux.ts'

/** How long one address is dialled before it is given up (ms). */
const dialTimeoutMs = 3_000
/** How long a member that dials may take until libp2p's own handshakes are over (ms). */
const upgradeTimeoutMs = 5_000
/** A peer is pinged so often, and gone when it does not answer in time (ms). */
const pingIntervalMs = 5_000
const pingTimeoutMs = 5_000
/** Window of a stream (bytes): one stream fills a link of 10 Gbit/s with a round trip of 3 ms. */
const windowBytes = 4 * 1024 * 1024
/** Region streams are silent while nothing changes, so this is the longest time that a timer takes (ms). */
const noInactivityTimeoutMs = 2 ** 31 - 1

/** The part of the gate that a host uses. */
export type PeerGate = Pick<RegionGate, 'accept' | 'adopt' | 'protect' | 'prologueOf' | 'isGuest'>

/**
 * A libp2p host with TCP, noise and yamux, which neither discovers peers nor relays. It is not started.
 * @param gate what every connection must pass before libp2p says anything
 * @param options `asGuest`: it dials as a guest of another region; `isBarred`: whether this host neither dials the peer
 *   nor lets it in
 * @throws invalid for addresses that are not usable
 */
export async function createPeerHost(
  { privateKey, gate }: { privateKey: PrivateKey; gate: PeerGate },
  {
    listen,
    isBarred,
    asGuest = false,
  }: { listen: readonly string[]; isBarred: (peerId: string) => boolean; asGuest?: boolean },
): Promise<Libp2p> {
  try {
    return await createLibp2p({
      privateKey,
      start: false,
      addresses: { listen: [...listen] },
      transports: [regionTcp(gate)],
      connectionProtector: () => gate,
      // A host that listens takes members and guests; one that dials says what it is.
      connectionEncrypters: asGuest
        ? [regionNoise(gate, { asGuest })]
        : [regionNoise(gate), regionNoise(gate, { asGuest: true })],
      streamMuxers: [
        regionYamux(windowBytes, {
          maxInboundStreams: limits.streams.perConnection,
          maxOutboundStreams: limits.streams.perConnection,
          streamOptions: {
            maxReadBufferLength: 2 * windowBytes,
            inactivityTimeout: noInactivityTimeoutMs,
          },
        }),
      ],
      services: { identify: identify(), ping: ping() },
      connectionManager: {
        maxConnections: limits.connections.inAll,
        dialTimeout: dialTimeoutMs,
        addressDialTimeout: dialTimeoutMs,
        reconnectRetries: 0,
        inboundUpgradeTimeout: upgradeTimeoutMs,
        // The gate bounds what has not proved anything, and drops the oldest; libp2p would refuse the newest.
        maxIncomingPendingConnections: Infinity,
        inboundConnectionThreshold: Infinity,
      },
      connectionMonitor: {
        pingInterval: pingIntervalMs,
        pingTimeout: { minTimeout: pingTimeoutMs },
        abortConnectionOnPingFailure: true,
      },
      connectionGater: {
        denyDialPeer: (peer) => isBarred(peer.toString()),
        denyOutboundEncryptedConnection: (peer) => isBarred(peer.toString()),
        denyInboundEncryptedConnection: (peer) => isBarred(peer.toString()),
      },
    })
  } catch (cause) {
    throw new P2pfsError('invalid', `peer addresses are not usable: ${(cause as Error).message}`, { cause })
  }
}
