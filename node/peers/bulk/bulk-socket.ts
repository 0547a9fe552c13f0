import { constants, timingSafeEqual } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import {
  connect as connectTls,
  createSecureContext,
  TLSSocket,
  type ConnectionOptions,
  type TLSSocketOptions,
  type TlsOptions,
} from 'node:tls'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  bulkAskerProof,
  bulkHolderProof,
  bulkProofBytes,
  grantIdBytes,
  type BulkGrant,
  type BulkMode,
} from '../../../protocol/messages/bulk.ts'
import type { GivenGrant, Grants } from './grants.ts'

/**
 * TLS 1.3 with the grant's secret as external PSK (RFC 8446, section 2.2). Node's PSK is a SHA-256 one, so the cipher
 * must be too; of the two that OpenSSL has, AES-128-GCM is the faster one. OpenSSL uses a PSK with an ephemeral key
 * exchange only (psk_dhe_ke), unless it is told otherwise: who learns the secret later reads nothing.
 */
const tlsOptions = { ciphers: 'TLS_AES_128_GCM_SHA256', minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' } as const

export interface SocketHandler {
  /** The handshake is over: both sides have proved that they know the secret. */
  onOpen: () => void
  /** Memory for the next bytes of the other side; not empty. It is asked for before each read. */
  target: () => Uint8Array
  /** So many bytes have been read into it. */
  onRead: (lengthBytes: number) => void
}

/** Opens the connection that a grant is for. Errors are the socket's. */
export function openBulkSocket(
  { mode, host, grant }: { mode: BulkMode; host: string; grant: BulkGrant },
  handler: SocketHandler,
): Socket {
  return mode === 'tls' ? openTls(host, grant, handler) : openPlain(host, grant, handler)
}

function openTls(host: string, { port, id, secret }: BulkGrant, { onOpen, target, onRead }: SocketHandler): Socket {
  const socket: TLSSocket = connectTls({
    ...tlsOptions,
    host,
    port,
    pskCallback: () => ({ psk: secret, identity: Buffer.from(id).toString('hex') }),
    // Nobody is known by a certificate here, whoever has signed it.
    ca: [],
    rejectUnauthorized: true,
    checkServerIdentity: () => new Error('the other side shows a certificate in place of the secret'),
    onread: readInto(target, onRead),
  } as ConnectionOptions)
  socket.once('secureConnect', () => {
    // A handshake with a PSK counts as a resumed session.
    if (socket.isSessionReused()) onOpen()
    else socket.destroy(new P2pfsError('denied', 'the other side does not prove the secret of the grant'))
  })
  return socket.setNoDelay(true)
}

function openPlain(host: string, { port, id, secret }: BulkGrant, handler: SocketHandler): Socket {
  const proof = Buffer.alloc(bulkProofBytes)
  let proofBytes = 0
  const target = (): Uint8Array => (proofBytes < bulkProofBytes ? proof.subarray(proofBytes) : handler.target())
  const onRead = (lengthBytes: number): void => {
    if (proofBytes === bulkProofBytes) return handler.onRead(lengthBytes)
    proofBytes += lengthBytes
    if (proofBytes < bulkProofBytes) return
    if (timingSafeEqual(proof, bulkHolderProof(secret))) handler.onOpen()
    else socket.destroy(new P2pfsError('denied', 'the other side does not prove the secret of the grant'))
  }
  const socket = connect({ host, port, onread: readInto(target, onRead) })
  socket.once('connect', () => socket.write(Buffer.concat([id, bulkAskerProof(secret)])))
  return socket.setNoDelay(true)
}

function readInto(
  buffer: () => Uint8Array,
  onRead: (lengthBytes: number) => void,
): { buffer: () => Uint8Array; callback: (lengthBytes: number) => boolean } {
  return {
    buffer,
    callback: (lengthBytes) => {
      onRead(lengthBytes)
      return true
    },
  }
}

/** Takes over an accepted socket whose other side has proved the secret of a grant. */
export type AcceptBulkSocket = (
  socket: Socket,
  handler: { onOpen: (socket: Socket, grant: GivenGrant) => void; onError: (error: Error) => void },
) => Socket

/** Accepts sockets by TLS. Nothing is said to those whose secret is not one of the grants. */
export function acceptTls(grants: Pick<Grants, 'use'>): AcceptBulkSocket {
  // Without tickets, so that no connection can be opened with what an earlier one has left.
  const secureContext = createSecureContext({ ...tlsOptions, secureOptions: constants.SSL_OP_NO_TICKET })
  return (raw, { onOpen, onError }) => {
    let grant: GivenGrant | undefined
    // A `tls.Server` does the same with its sockets and its own option of this name. Without it no handshake succeeds.
    const options: TLSSocketOptions & Pick<TlsOptions, 'pskCallback'> = {
      isServer: true,
      secureContext,
      pskCallback: (_, identity) => {
        grant = grants.use(identity)
        return grant === undefined ? null : grant.secret
      },
    }
    const socket = new TLSSocket(raw, options)
    socket.on('error', onError)
    socket.once('secure', () => {
      if (grant === undefined) socket.destroy()
      else onOpen(socket, grant)
    })
    return socket
  }
}

/** Accepts sockets whose bytes nobody encrypts: the other side proves the secret, then this one. */
export function acceptPlain(grants: Pick<Grants, 'use'>): AcceptBulkSocket {
  return (socket, { onOpen, onError }) => {
    const onReadable = (): void => {
      const greeting = socket.read(grantIdBytes + bulkProofBytes) as Buffer | null
      if (greeting === null) return
      const grant = grants.use(greeting.subarray(0, grantIdBytes).toString('hex'))
      const proof = greeting.subarray(grantIdBytes)
      if (grant === undefined || !timingSafeEqual(proof, bulkAskerProof(grant.secret))) return void socket.destroy()
      socket.off('readable', onReadable)
      socket.write(bulkHolderProof(grant.secret))
      onOpen(socket, grant)
    }
    return socket.on('error', onError).on('readable', onReadable)
  }
}
