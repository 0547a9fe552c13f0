import { once } from 'node:events'
import { createServer, isIPv6, type Server, type Socket } from 'node:net'
import type { BulkListen } from './thread-messages.ts'

/** How often another port is tried: one that is free at the first address may be in use at the next. */
const maxTries = 8

/** Accepts connections at one port of several addresses. */
export class BulkListeners implements Disposable {
  readonly #onSocket: (socket: Socket) => void
  #servers: Server[] = []

  constructor(onSocket: (socket: Socket) => void) {
    this.#onSocket = onSocket
  }

  /** @returns the port @throws what the system refuses any of the addresses with; none is listened at then */
  async open({ hosts, port, orAny }: BulkListen): Promise<number> {
    for (let tries = 0; ; tries++) {
      try {
        let chosen = tries === 0 ? port : 0
        for (const host of hosts) chosen = await this.#listen(host, chosen)
        return chosen
      } catch (error) {
        this[Symbol.dispose]()
        const isInUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
        if (!isInUse || !orAny || tries >= maxTries) throw error
      }
    }
  }

  [Symbol.dispose](): void {
    for (const server of this.#servers) server.close()
    this.#servers = []
  }

  async #listen(host: string, port: number): Promise<number> {
    const server = createServer(this.#onSocket)
    this.#servers.push(server)
    // As libp2p listens: the IPv4 addresses are listed by themselves.
    server.listen({ host, port, ipv6Only: isIPv6(host) })
    await once(server, 'listening')
    // A connection that cannot be accepted is its asker's loss.
    server.on('error', () => undefined)
    return (server.address() as { port: number }).port
  }
}
