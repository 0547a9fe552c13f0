import type { BlobMap } from '../../protocol/blob-map.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import type { Log } from '../base/log.ts'
import type { Membership } from '../peers/membership.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import { OpenQuestions } from './open-questions.ts'

/**
 * Silence of the region that counts as "nobody has it" (ms). Half of the default read deadline: a member that restarts,
 * or a switch that does, is back by then; and a read that waits can still get its bytes from the registry, if that has
 * answered that it has nothing published.
 */
export const regionSilenceMs = 30_000

/** How long the region may take to answer for a blob map (ms): a read waits. */
const mapTimeoutMs = 3_000

export interface RegionAnswersParts {
  region: Pick<RegionObjects, 'fetchBlobMap' | 'fetchLayerIndex'>
  membership: Pick<Membership, 'isAlone'>
  log: Log
  now?: () => number
}

/**
 * Asks the region how to read a layer, and tells "nobody has it" from "nobody has answered yet". Nobody has it when at
 * least one member says no, and all others that are not silent do. Where all are silent nobody has answered.
 */
export class RegionAnswers {
  readonly #parts: RegionAnswersParts
  readonly #open: OpenQuestions

  constructor(parts: RegionAnswersParts) {
    this.#parts = parts
    this.#open = new OpenQuestions(parts)
  }

  /**
   * @returns undefined where nobody has it
   * @throws unavailable where the region has not answered; the signal's reason
   */
  async blobMap(digest: Digest, signal: AbortSignal): Promise<BlobMap | undefined> {
    const { region } = this.#parts
    const ended = AbortSignal.any([signal, AbortSignal.timeout(mapTimeoutMs)])
    const question = async (): Promise<BlobMap | undefined> =>
      await region.fetchBlobMap(digest, { signal: ended, mustAnswer: true })
    return await this.#ask(digest, question, signal)
  }

  /** As {@link blobMap}. */
  async layerIndex(diffId: Digest, signal: AbortSignal): Promise<LayerIndex | undefined> {
    const { region } = this.#parts
    const question = async (): Promise<LayerIndex | undefined> =>
      await region.fetchLayerIndex(diffId, { signal, mustAnswer: true })
    return await this.#ask(diffId, question, signal)
  }

  async #ask<T>(object: Digest, question: () => Promise<T | undefined>, signal: AbortSignal): Promise<T | undefined> {
    const { membership, log } = this.#parts
    try {
      const answer = await question()
      if (answer === undefined && membership.isAlone())
        throw new P2pfsError('unavailable', 'no member of the region is connected')
      this.#open.answered('region')
      return answer
    } catch (error) {
      signal.throwIfAborted()
      const silentMs = this.#open.ask('region')
      if (silentMs < regionSilenceMs) {
        const why = (error as Error).message
        throw new P2pfsError('unavailable', `the region does not answer: ${why}`, { cause: error })
      }
      log.warn('region has not answered for long; layers are read as if it had nothing', { error, object, silentMs })
      return undefined
    }
  }
}
