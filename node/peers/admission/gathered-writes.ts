import { Socket } from 'node:net'
import type { MultiaddrConnection } from '@libp2p/interface'
import type { AbstractMultiaddrConnection } from '@libp2p/utils'

/**
 * Has a TCP connection of libp2p write what it sends in one turn of the event loop together. libp2p makes a system call of
 * each piece: a chunk is some thirty of them, lengths and tags of the encryption among them.
 */
export function gatherWrites(connection: MultiaddrConnection): void {
  const socket = socketOf(connection)
  const sending = connection as unknown as Pick<AbstractMultiaddrConnection, 'sendData' | 'sendReset'>
  const sendData = sending.sendData.bind(connection)
  const sendReset = sending.sendReset.bind(connection)
  let isGathering = false
  const flush = (): void => {
    if (!isGathering) return
    isGathering = false
    socket.uncork()
  }
  sending.sendData = (data) => {
    if (!isGathering) {
      isGathering = true
      socket.cork()
      setImmediate(flush)
    }
    const sent = sendData(data)
    // The socket says that it has enough, and would not take more before it has written this.
    if (!sent.canSendMore) flush()
    return sent
  }
  // Messages that were sent before are not lost.
  sending.sendReset = (error) => {
    flush()
    sendReset(error)
  }
}

/** The socket of a TCP connection, which libp2p does not show. A version that keeps it elsewhere fails at once. */
function socketOf(connection: MultiaddrConnection): Socket {
  const { socket } = connection as unknown as { socket: unknown }
  if (!(socket instanceof Socket)) throw new TypeError("libp2p's TCP connection has no socket")
  return socket
}
