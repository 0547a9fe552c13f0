import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { orAbort } from '../../../node/base/single-flight.ts'
import type { ChunkSource, SourceOptions } from '../../../node/fetch/source.ts'
import type { ChunkRequest } from '../../../node/model/chunk-request.ts'

/** A chunk source whose chunks come from a function. */
export class FakeSource implements ChunkSource {
  /** Requests for which the function was called. */
  readonly asked: ChunkRequest[] = []
  readonly #deliver: (request: ChunkRequest, options: SourceOptions) => Promise<Uint8Array | undefined>
  readonly #running = new Map<Digest, Promise<Uint8Array | undefined>>()

  /** @param deliver its answer is undefined where the source does not have the chunk */
  constructor(deliver: (request: ChunkRequest, options: SourceOptions) => Promise<Uint8Array | undefined>) {
    this.#deliver = deliver
  }

  async fetch(request: ChunkRequest, options: SourceOptions): Promise<Uint8Array> {
    const { digest } = request
    let running = this.#running.get(digest)
    if (running === undefined) {
      this.asked.push(request)
      running = this.#deliver(request, options).finally(() => this.#running.delete(digest))
      this.#running.set(digest, running)
    }
    const bytes = await orAbort(running, options.signal)
    if (bytes === undefined) throw new P2pfsError('missing', 'the fake source does not have it', { digest })
    if (digestOf(bytes) !== digest) throw new P2pfsError('invalid', 'the fake source has other bytes', { digest })
    return bytes
  }
}
