import { request } from 'undici'
import { failed, type Answer, type BackendRequest, type RegistryBackend } from '../../test/support/registry/backend.ts'
import { RegistryFront, type FrontOptions } from '../../test/support/registry/front.ts'

/** Headers that are not for the next hop (RFC 9110, section 7.6.1), and headers that the front writes itself. */
const ownHeaders = new Set([
  'connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
  'te',
  'trailer',
  'proxy-authorization',
  'content-length',
  'expect',
])

/** A proxy in front of a real registry, in plain HTTP, with faults on command: `front.faults`. */
export class FaultProxy implements RegistryBackend, AsyncDisposable {
  readonly #upstream: string
  #front: RegistryFront | undefined

  private constructor(upstream: string) {
    this.#upstream = upstream
  }

  /** @param upstream `HOST:PORT` */
  static async start(upstream: string, options: FrontOptions = {}): Promise<FaultProxy> {
    const proxy = new FaultProxy(upstream)
    proxy.#front = await RegistryFront.start(proxy, options)
    return proxy
  }

  get front(): RegistryFront {
    return this.#front!
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.front[Symbol.asyncDispose]()
  }

  async answer({ method, url, headers, body, signal }: BackendRequest): Promise<Answer> {
    const target = new URL(`${url.pathname}${url.search}`, `http://${this.#upstream}`)
    const hasBody = method !== 'GET' && method !== 'HEAD'
    try {
      const response = await request(target, {
        method: method as 'GET',
        // The registry makes locations from the host, and these must lead here.
        headers: { ...kept(headers), host: this.front.authority },
        ...(hasBody ? { body: body as unknown as Buffer } : {}),
        signal,
      })
      const length = response.headers['content-length']
      return {
        status: response.statusCode,
        headers: kept(response.headers),
        length: typeof length === 'string' ? Number(length) : undefined,
        body: response.body as AsyncIterable<Buffer>,
      }
    } catch (error) {
      if (signal.aborted) throw error
      return failed(502, 'UPSTREAM')
    }
  }
}

function kept(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const pairs = Object.entries(headers).filter((pair): pair is [string, string] => typeof pair[1] === 'string')
  return Object.fromEntries(pairs.filter(([name]) => !ownHeaders.has(name)))
}
