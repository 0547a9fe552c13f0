import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTcpServer, type AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'

/**
 * An HTTP server that ends with the test; `handle` answers everything.
 * @param address of this machine: 127.0.0.0/8 on Linux
 * @returns HOST:PORT
 */
export async function serve(
  t: TestContext,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
  address = '127.0.0.1',
): Promise<string> {
  const server = createServer(handle)
  server.listen(0, address)
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return `${address}:${(server.address() as AddressInfo).port}`
}

/** A TCP server that nobody should connect to; it ends with the test. */
export async function trap(
  t: TestContext,
  address = '127.0.0.1',
  port = 0,
): Promise<{ authority: string; port: number; connections: () => number }> {
  let connections = 0
  const server = createTcpServer((socket) => {
    connections++
    socket.destroy()
  })
  server.listen(port, address)
  await once(server, 'listening')
  t.after(() => void server.close())
  const { port: own } = server.address() as AddressInfo
  return { authority: `${address}:${own}`, port: own, connections: () => connections }
}
