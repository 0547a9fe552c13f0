import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import type { ImageSource, ResolvedImage } from '../registry/image-source.ts'
import { formatReference, type Reference } from '../registry/reference.ts'
import type { Catalog } from '../store/catalog.ts'
import type { AnswerTimes } from './answer-times.ts'
import { registryOf } from './decisions.ts'

/**
 * The time for each answer where there is nothing else to use (ms): the registry may ask for a pause of 30 s, and gets
 * 10 s besides. Tools that call p2pfs give up after one or two minutes; they must get the error that says what is wrong.
 */
export const answerMs = 40_000

export interface RegistryLookupParts {
  catalog: Pick<Catalog, 'manifestOfIndex' | 'putManifestOfIndex'>
  registry: Pick<ImageSource, 'topDigest' | 'resolve'>
  /** Is told how long registries take; nobody is where it is not given. */
  times?: Pick<AnswerTimes, 'note'>
  log: Log
}

export interface LookupOptions {
  signal: AbortSignal
  /** How long the registry may take for each answer (ms). */
  answerMs: number
  /** Called when the first answer has come. */
  onAnswer?: () => void
}

interface Listening {
  signal: AbortSignal
  /** To be called for each answer: the next one may take as long again. */
  onAnswer: () => void
}

/** Asks registries what references stand for now, and does not wait for a registry that is silent. */
export class RegistryLookup {
  readonly #parts: RegistryLookupParts

  constructor(parts: RegistryLookupParts) {
    this.#parts = parts
  }

  /**
   * The image that the reference stands for, as the registry describes it.
   * @throws timeout naming a registry that is silent; the codes of the registry client
   */
  async resolve(reference: Reference, platform: string, options: LookupOptions): Promise<ResolvedImage> {
    const { log } = this.#parts
    log.info('registry is asked for an unknown image', { image: formatReference(reference), platform })
    return await this.#listen(
      reference,
      options,
      async (listening) => await this.#describe(reference, platform, listening),
    )
  }

  /** Asks what the reference stands for, with one request. @throws as {@link resolve} */
  async ask(reference: Reference, options: LookupOptions): Promise<void> {
    await this.#listen(reference, options, async (listening) => {
      await this.#parts.registry.topDigest(reference, listening)
      listening.onAnswer()
    })
  }

  /**
   * Checks whether the reference still stands for a known image. If it does, that takes one request.
   * @returns undefined if it does; else the image that it stands for now
   * @throws as {@link resolve}
   */
  async findMoved(
    reference: Reference,
    { platform, manifestDigest }: { platform: string; manifestDigest: Digest },
    options: LookupOptions,
  ): Promise<ResolvedImage | undefined> {
    const { catalog, registry } = this.#parts
    return await this.#listen(reference, options, async (listening) => {
      const topDigest = await registry.topDigest(reference, listening)
      listening.onAnswer()
      if (topDigest === manifestDigest) return undefined
      if ((await catalog.manifestOfIndex(topDigest, platform)) === manifestDigest) return undefined
      const image = await this.#describe(reference, platform, listening)
      return image.manifestDigest === manifestDigest ? undefined : image
    })
  }

  /** Reads the image, and remembers what an index names for the platform: the next check is one request. */
  async #describe(reference: Reference, platform: string, listening: Listening): Promise<ResolvedImage> {
    const { catalog, registry } = this.#parts
    const { topDigest, ...image } = await registry.resolve(reference, platform, listening)
    const { manifestDigest } = image
    if (manifestDigest !== topDigest) await catalog.putManifestOfIndex(topDigest, platform, manifestDigest)
    return image
  }

  /** Runs a task that sends requests to a registry, and ends it when the registry has been silent for `answerMs`. */
  async #listen<T>(
    reference: Reference,
    { signal, answerMs, onAnswer: onFirst = () => undefined }: LookupOptions,
    task: (listening: Listening) => Promise<T>,
  ): Promise<T> {
    const silence = new AbortController()
    const registry = registryOf(reference)
    const sinceMs = performance.now()
    const giveUp = (): void =>
      silence.abort(new P2pfsError('timeout', `${registry} did not answer within ${answerMs / 1000} s`, { registry }))
    let timer = setTimeout(giveUp, answerMs)
    let hasAnswered = false
    const noteAnswer = (): void => {
      if (hasAnswered) return
      hasAnswered = true
      this.#parts.times?.note(registry, performance.now() - sinceMs)
      onFirst()
    }
    const onAnswer = (): void => {
      clearTimeout(timer)
      timer = setTimeout(giveUp, answerMs)
      noteAnswer()
    }
    try {
      return await task({ signal: AbortSignal.any([signal, silence.signal]), onAnswer })
    } catch (error) {
      if (isP2pfsError(error, 'denied', 'missing')) noteAnswer()
      throw silence.signal.aborted && !signal.aborted ? silence.signal.reason : error
    } finally {
      clearTimeout(timer)
    }
  }
}
