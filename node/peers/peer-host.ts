import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import { P2pfsError } from '../../protocol/errors.ts'
import type { BanList } from './ban-list.ts'

/** A dead address is given up after this, milliseconds. */
const dialTimeoutMs = 3_000
/** A peer that does not answer a ping is gone, milliseconds. */
const pingIntervalMs = 5_000
const pingTimeoutMs = 5_000
/** One stream fills a 10 Gbit/s link at 3 ms, bytes. */
const windowBytes = 4 * 1024 * 1024
/** Region streams are silent for as long as nothing changes: the largest time that a timer takes, milliseconds. */
const noInactivityTimeoutMs = 2 ** 31 - 1
/** Streams that one connection may have open: a few long-lived ones, and requests for objects. */
const maxStreams = 128
const maxConnections = 1024

/** libp2p with TCP, noise and yamux, and nothing that finds or relays by itself. */
export async function createPeerHost(
  privateKey: PrivateKey,
  listen: readonly string[],
  bans: BanList,
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
