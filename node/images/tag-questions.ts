import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RegistryWord } from '../../protocol/messages/registry-word.ts'
import type { FoundRootfs } from '../model/image.ts'
import type { ResolvedImage } from '../registry/image-source.ts'
import { callerOf, type Reference } from '../registry/reference.ts'
import { AnswerTimes } from './answer-times.ts'
import { judgeFailure, registryOf, type FailureVerdict } from './decisions.ts'
import { PatientLookup } from './patient-lookup.ts'
import type { RecordKeeper } from './record-keeper.ts'
import { answerMs, RegistryLookup, type LookupOptions, type RegistryLookupParts } from './registry-lookup.ts'
import { RegistryWords, type RegistryWordsParts } from './registry-words.ts'
import { SilentRegistries } from './silent-registries.ts'

export type TagQuestionsParts = RegistryLookupParts & Pick<RegistryWordsParts, 'region' | 'trust' | 'log'>
type Parts = TagQuestionsParts & { keeper: Pick<RecordKeeper, 'findOnHost' | 'confirm'> }

interface AskOptions extends LookupOptions {
  /** Whether the first answer is waited for no longer than it usually takes: what comes later is for the next who asks. */
  isPatient: boolean
}

/** How this host asks registries what tags stand for, and what it knows of their silence. */
export class TagQuestions {
  readonly #parts: Parts
  readonly #budgetMs: number
  readonly #silent: SilentRegistries
  readonly #lookup: RegistryLookup
  readonly #words: RegistryWords
  readonly #patient: PatientLookup

  /** @param options `budgetMs`: for each answer, where there is something else to use; `now`: the clock (ms) */
  constructor(parts: Parts, { budgetMs, now }: { budgetMs: number; now: () => number }) {
    this.#parts = parts
    this.#budgetMs = budgetMs
    const times = new AnswerTimes()
    this.#silent = new SilentRegistries({ now })
    this.#lookup = new RegistryLookup({ ...parts, times })
    this.#words = new RegistryWords({ ...parts, silent: this.#silent, times }, { now })
    const { words, lookup, silent } = { words: this.#words, lookup: this.#lookup, silent: this.#silent }
    this.#patient = new PatientLookup({ lookup, silent, times, words }, { now })
  }

  /** Whether the registry did not answer when it was asked last. */
  isSilent(reference: Reference): boolean {
    return this.#silent.has(registryOf(reference))
  }

  /** See {@link RegistryLookup.resolve}. */
  async resolve(reference: Reference, platform: string, { signal }: { signal: AbortSignal }): Promise<ResolvedImage> {
    return await this.#lookup.resolve(reference, platform, { signal, answerMs })
  }

  /** The image that the tag stands for now, where it is another image than the one that is known. @throws as {@link RegistryLookup.findMoved} */
  async findMoved(
    reference: Reference,
    known: FoundRootfs,
    { isPatient, ...options }: AskOptions,
  ): Promise<ResolvedImage | undefined> {
    const { record } = known
    const onLate = (answer: Promise<ResolvedImage | undefined>): void =>
      void this.#noteLate(reference, known, answer).catch((error: unknown) =>
        this.#parts.log.debug('late answer of a registry is of no use', { error, image: record.reference }),
      )
    const moved = isPatient
      ? await this.#patient.findMoved(reference, record, { ...options, onLate })
      : await this.#lookup.findMoved(reference, record, options)
    this.#silent.answered(registryOf(reference))
    return moved
  }

  /** Judges why there is no answer, and remembers a registry that is silent. */
  failed(reference: Reference, known: FoundRootfs, error: unknown): FailureVerdict {
    const verdict = judgeFailure(error, {
      isOnMembersWord: known.belief.name === 'member',
      isForCaller: callerOf(reference) !== undefined,
    })
    const registry = registryOf(reference)
    if (verdict.isSilence) this.#silent.silent(registry)
    else this.#silent.answered(registry)
    return verdict
  }

  /** Asks a silent registry again, beside whoever has come and would have asked it: nobody waits for that. */
  askSilent(reference: Reference): void {
    const registry = registryOf(reference)
    if (!this.#silent.isDue(registry)) return
    const options = { signal: new AbortController().signal, answerMs: this.#budgetMs }
    this.#lookup.ask(reference, options).then(
      () => this.#silent.answered(registry),
      (error: unknown) => {
        if (!judgeFailure(error).isSilence) this.#silent.answered(registry)
        this.#parts.log.debug('registry has been asked again', { error, registry })
      },
    )
  }

  /**
   * Asks for a tag ahead of mounts, which are not to ask: where it has not moved, this host states so now. A registry that is
   * silent is left alone for ten seconds.
   * @returns the image, where the tag still stands for it
   * @throws unavailable where the registry was silent a moment ago; as {@link RegistryLookup.findMoved}
   */
  async refresh(
    reference: Reference,
    known: FoundRootfs,
    { signal }: { signal: AbortSignal },
  ): Promise<FoundRootfs | undefined> {
    const registry = registryOf(reference)
    if (this.#silent.has(registry) && !this.#silent.isDue(registry))
      throw new P2pfsError('unavailable', `${registry} did not answer a moment ago`, { registry })
    try {
      const options = { signal, answerMs: this.#budgetMs, isPatient: false }
      if ((await this.findMoved(reference, known, options)) !== undefined) return undefined
    } catch (error) {
      if (!signal.aborted) this.failed(reference, known, error)
      throw error
    }
    return await this.#parts.keeper.confirm(known)
  }

  /** This host's word to members about the registry that has this key (`registryKey`). */
  word(key: Digest): RegistryWord | undefined {
    return this.#words.own(key)
  }

  /** The registry answers beside the mount that has asked. */
  async #noteLate(
    reference: Reference,
    { record }: FoundRootfs,
    answer: Promise<ResolvedImage | undefined>,
  ): Promise<void> {
    const { keeper } = this.#parts
    const registry = registryOf(reference)
    try {
      const moved = await answer
      this.#silent.answered(registry)
      const now = moved === undefined ? await keeper.findOnHost(record) : undefined
      if (now?.record.manifestDigest === record.manifestDigest) await keeper.confirm(now)
    } catch (error) {
      if (!judgeFailure(error).isSilence) this.#silent.answered(registry)
      throw error
    }
  }
}
