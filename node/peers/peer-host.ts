import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import { P2pfsError } from '../../protocol/errors.ts'
import type { BanList } from './ban-list.ts'

/** How long one address is dialled before it is given up (ms). */
const dialTimeoutMs = 3_000
/** A peer is pinged so often, and gone when it does not answer in time (ms). */
const pingIntervalMs = 5_000
const pingTimeoutMs = 5_000
/** Window of a stream (bytes): one stream fills a link of 10 Gbit/s with a round trip of 3 ms. */
const windowBytes = 4 * 1024 * 1024
/** Region streams are silent while nothing changes, so this is the longest time that a timer takes (ms). */
const noInactivityTimeoutMs = 2 ** 31 - 1
/** Open streams of one connection: a few long-lived ones, and requests for objects. */
const maxStreams = 128
const maxConnections = 1024

/**
 * A libp2p host with TCP, noise and yamux, which neither discovers peers nor relays. It is not started.
 * @param bans peers that it neither dials nor lets in
 * @throws invalid for addresses that are not usable
 */
export async function createPeerHost(
  privateKey: PrivateKey,
  listen: readonly string[],
  bans: Pick<BanList, 'has'>,
): Promise<Libp2p> {
  try {
    return await createLibp2p({
      privateKey,
      start: false,
      addresses: { listen: [...listen] },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [
        yamux({
          maxInboundStreams: maxStreams,
          maxOutboundStreams: maxStreams,
          streamOptions: {
            initialStreamWindowSize: windowBytes,
            maxStreamWindowSize: windowBytes,
            maxReadBufferLength: 2 * windowBytes,
            inactivityTimeout: noInactivityTimeoutMs,
          },
        }),
      ],
      services: { identify: identify(), ping: ping() },
      connectionManager: {
        maxConnections,
        dialTimeout: dialTimeoutMs,
        addressDialTimeout: dialTimeoutMs,
        reconnectRetries: 0,
      },
      connectionMonitor: {
        pingInterval: pingIntervalMs,
        pingTimeout: { minTimeout: pingTimeoutMs },
        abortConnectionOnPingFailure: true,
      },
      connectionGater: {
        denyDialPeer: (peer) => bans.has(peer.toString()),
        denyInboundEncryptedConnection: (peer) => bans.has(peer.toString()),
      },
    })
  } catch (cause) {
    throw new P2pfsError('invalid', `peer addresses are not usable: ${(cause as Error).message}`, { cause })
  }
}
