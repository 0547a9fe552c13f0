import type { Stream } from '@libp2p/interface'
import {
  encodeLocationAnswer,
  parseLocationRequest,
  type LocationAnswer,
  type LocationRequest,
} from '../../../protocol/messages/location.ts'
import { readFrames, writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'
import type { Peer } from '../peer.ts'
import { SourcePace } from '../source-pace.ts'
import type { TrackedKeys } from './tracked-keys.ts'

/** Answers members as a tracker. Any key is taken, since views of the region differ for a while. */
export class LocationServer {
  readonly #keys: TrackedKeys
  readonly #pace = new SourcePace(limits.location)

  constructor({ keys }: { keys: TrackedKeys }) {
    this.#keys = keys
  }

  /**
   * Answers the one request of a stream.
   * @throws invalid where the peer breaks the protocol; unavailable where the stream breaks; the signal's reason
   */
  async serve(stream: Stream, peer: Peer, { signal }: { signal: AbortSignal }): Promise<void> {
    const frames = readFrames(stream, limits.location.requestBytes)
    try {
      const { done, value } = await frames.next()
      if (done === true) return
      const request = parseLocationRequest(value)
      await this.#pace.wait(peer, { signal })
      const bytes = encodeLocationAnswer(answer(this.#keys, peer.id, request))
      const late = AbortSignal.any([signal, AbortSignal.timeout(limits.unread.locationMs)])
      await writeFrame(stream, [bytes], { signal: late })
      await stream.close({ signal: late })
    } finally {
      await frames.return(undefined)
    }
  }
}

/** The answer to a request of the member; it is registered after it is answered. */
export function answer(
  keys: TrackedKeys,
  asker: string,
  { keys: said, wanted, order }: LocationRequest,
): LocationAnswer {
  const found = wanted === 0 ? [] : said.map(({ key }) => keys.members(key, { asker, wanted, order }))
  for (const { key, holds } of said) keys.say(asker, key, holds)
  return found
}
