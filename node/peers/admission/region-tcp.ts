import { Server, type Socket } from 'node:net'
import type { CreateListenerOptions, Listener, Transport, Upgrader } from '@libp2p/interface'
import { tcp, type TCPComponents } from '@libp2p/tcp'
import { gatherWrites } from './gathered-writes.ts'
import type { RegionGate } from './region-gate.ts'

/** libp2p's TCP transport, whose listeners get a socket only when its other side has proved the region's secret. */
export function regionTcp(gate: Pick<RegionGate, 'accept' | 'adopt'>): (components: TCPComponents) => Transport {
  return (components) => {
    const transport = tcp()(components)
    const createListener = transport.createListener.bind(transport)
    transport.createListener = (options) => gatedListener(createListener, options, gate)
    const dial = transport.dial.bind(transport)
    transport.dial = async (address, options) => {
      const { upgrader } = options
      const gathering = Object.create(upgrader) as Upgrader
      gathering.upgradeOutbound = async (connection, upgradeOptions) => {
        gatherWrites(connection)
        return await upgrader.upgradeOutbound(connection, upgradeOptions)
      }
      return await dial(address, { ...options, upgrader: gathering })
    }
    return transport
  }
}

function gatedListener(
  createListener: (options: CreateListenerOptions) => Listener,
  options: CreateListenerOptions,
  gate: Pick<RegionGate, 'accept' | 'adopt'>,
): Listener {
  /** The prologue of the socket that the listener is being given. */
  let prologue: Uint8Array | undefined
  const { upgrader } = options
  const adopting = Object.create(upgrader) as Upgrader
  adopting.upgradeInbound = async (connection, upgradeOptions) => {
    if (prologue !== undefined) gate.adopt(connection, prologue)
    gatherWrites(connection)
    await upgrader.upgradeInbound(connection, upgradeOptions)
  }
  const listener = createListener({ ...options, upgrader: adopting })
  const server = serverOf(listener)
  const [take] = server.listeners('connection') as ((socket: Socket) => void)[]
  if (take === undefined) throw new TypeError("libp2p's TCP listener does not listen for connections")
  server.removeAllListeners('connection').on('connection', (socket: Socket) =>
    gate.accept(socket, (proved) => {
      // This host has stopped meanwhile; the listener would throw, and nobody would catch it.
      if (!server.listening) return void socket.resetAndDestroy()
      // The listener makes a connection of the socket, and calls the upgrader, before this returns.
      prologue = proved
      take(socket)
      prologue = undefined
    }),
  )
  return listener
}

/** The server of a TCP listener, which libp2p does not show. A version that keeps it elsewhere fails at once. */
function serverOf(listener: Listener): Server {
  const { server } = listener as unknown as { server: unknown }
  if (!(server instanceof Server)) throw new TypeError("libp2p's TCP listener has no server")
  return server
}
