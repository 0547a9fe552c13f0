import type { SecureContext } from 'node:tls'
import { Agent, buildConnector, ProxyAgent, type Dispatcher } from 'undici'
import { reachKey, type Reach, type ReachGuard } from './reach.ts'

export interface DispatcherOptions {
  connections: number
  connectMs: number
}

export interface TlsContext {
  /** Undefined for Node's own. */
  context: SecureContext | undefined
  /** False: any certificate will do. */
  verify: boolean
}

/** Pools of connections that are kept: proxies and certificates that differ. */
const maxDispatchers = 64

/**
 * undici's pools of connections: one for each combination of TLS settings, proxy and reach. A connection that one
 * request may have is not given to another one that may not.
 */
export class Dispatchers {
  readonly #guard: ReachGuard
  readonly #options: DispatcherOptions
  /** Oldest first. */
  readonly #dispatchers = new Map<string, Dispatcher>()
  readonly #contextNumbers = new WeakMap<SecureContext, number>()
  #contexts = 0

  constructor({ guard }: { guard: ReachGuard }, options: DispatcherOptions) {
    this.#guard = guard
    this.#options = options
  }

  /**
   * The pool for a proxy, if any, and TLS settings other than Node's, if any.
   * @param reach where connections may lead to; undefined: everywhere. That of a proxy is its own matter
   */
  get(proxy: string | undefined, tls: TlsContext, reach?: Reach): Dispatcher {
    const place = reach === undefined ? '' : reachKey(reach)
    const key = `${tls.context === undefined ? '' : this.#numberOf(tls.context)} ${tls.verify} ${proxy ?? ''} ${place}`
    const existing = this.#dispatchers.get(key)
    if (existing !== undefined) return existing
    if (this.#dispatchers.size >= maxDispatchers) this.#retireOldest()
    const dispatcher = this.#create(proxy, tls, reach)
    this.#dispatchers.set(key, dispatcher)
    return dispatcher
  }

  /** Ends all connections with `reason`. */
  async destroy(reason: Error): Promise<void> {
    const all = [...this.#dispatchers.values()]
    this.#dispatchers.clear()
    await Promise.all(all.map(async (dispatcher) => await dispatcher.destroy(reason)))
  }

  #create(proxy: string | undefined, { context, verify }: TlsContext, reach: Reach | undefined): Dispatcher {
    const { connections, connectMs } = this.#options
    const connect = {
      timeout: connectMs,
      ...(context === undefined ? {} : { secureContext: context }),
      ...(verify ? {} : { rejectUnauthorized: false }),
    }
    // The client has its own timers for answers, which say what was waited for.
    const common = { connections, pipelining: 1, headersTimeout: 0, bodyTimeout: 0 }
    if (proxy === undefined)
      return new Agent({ ...common, connect: reach === undefined ? connect : this.#connectWithin(reach, connect) })
    // As Docker does: a tunnel for HTTPS alone.
    return new ProxyAgent({ ...common, uri: proxy, proxyTunnel: false, requestTls: connect, proxyTls: connect })
  }

  #connectWithin(reach: Reach, options: buildConnector.BuildOptions): buildConnector.connector {
    const guard = this.#guard
    const connect = buildConnector({ ...options, lookup: guard.lookupWithin(reach) })
    return (to, callback) => {
      try {
        // No lookup is made for an address.
        guard.checkAddress(to.hostname, reach)
      } catch (error) {
        return callback(error as Error, null)
      }
      connect(to, callback)
    }
  }

  /** Requests that are under way on it come to their end. */
  #retireOldest(): void {
    const [oldest] = this.#dispatchers
    if (oldest === undefined) return
    this.#dispatchers.delete(oldest[0])
    void oldest[1].close()
  }

  #numberOf(context: SecureContext): number {
    const existing = this.#contextNumbers.get(context)
    if (existing !== undefined) return existing
    this.#contextNumbers.set(context, ++this.#contexts)
    return this.#contexts
  }
}
