import type { SecureContext } from 'node:tls'
import { Agent, ProxyAgent, type Dispatcher } from 'undici'

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

/** undici's pools of connections: one for each combination of TLS settings and proxy. */
export class Dispatchers {
  readonly #options: DispatcherOptions
  /** Oldest first. */
  readonly #dispatchers = new Map<string, Dispatcher>()
  readonly #contextNumbers = new WeakMap<SecureContext, number>()
  #contexts = 0

  constructor(options: DispatcherOptions) {
    this.#options = options
  }

  /** The pool for a proxy, if any, and TLS settings other than Node's, if any. */
  get(proxy: string | undefined, tls: TlsContext): Dispatcher {
    const key = `${tls.context === undefined ? '' : this.#numberOf(tls.context)} ${tls.verify} ${proxy ?? ''}`
    const existing = this.#dispatchers.get(key)
    if (existing !== undefined) return existing
    if (this.#dispatchers.size >= maxDispatchers) this.#retireOldest()
    const dispatcher = this.#create(proxy, tls)
    this.#dispatchers.set(key, dispatcher)
    return dispatcher
  }

  /** Ends all connections with `reason`. */
  async destroy(reason: Error): Promise<void> {
    const all = [...this.#dispatchers.values()]
    this.#dispatchers.clear()
    await Promise.all(all.map(async (dispatcher) => await dispatcher.destroy(reason)))
  }

  #create(proxy: string | undefined, { context, verify }: TlsContext): Dispatcher {
    const { connections, connectMs } = this.#options
    const connect = {
      timeout: connectMs,
      ...(context === undefined ? {} : { secureContext: context }),
      ...(verify ? {} : { rejectUnauthorized: false }),
    }
    // The client has its own timers for answers, which say what was waited for.
    const common = { connections, pipelining: 1, headersTimeout: 0, bodyTimeout: 0 }
    if (proxy === undefined) return new Agent({ ...common, connect })
    // As Docker does: a tunnel for HTTPS alone.
    return new ProxyAgent({ ...common, uri: proxy, proxyTunnel: false, requestTls: connect, proxyTls: connect })
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
