import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { RegistryWord } from '../../protocol/messages/registry-word.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import { orAbort } from '../base/single-flight.ts'
import type { ResolvedImage } from '../registry/image-source.ts'
import { callerOf, formatReference, type Reference } from '../registry/reference.ts'
import type { AnswerTimes } from './answer-times.ts'
import { imageKey, registryOf } from './decisions.ts'
import type { LookupOptions, RegistryLookup } from './registry-lookup.ts'
import type { RegistryWords } from './registry-words.ts'
import type { SilentRegistries } from './silent-registries.ts'

/**
 * How long a mount waits for the registry (ms): twice its usual time, and what a busy host adds; `first` where neither this
 * host nor a member has had an answer of it: a first connection, a token and an answer from another continent; `told` where
 * a member says that it is silent: one that is near, and back, answers within it.
 */
const patience = { factor: 2, addedMs: 30, leastMs: 60, firstMs: 500, toldMs: 30 } as const
/** A tag whose answer came late, and was another than the mount took, has the whole budget for so long (ms). */
const overdueMs = 10 * 60_000
/** Such tags that are remembered. */
const maxOverdue = 1024

export interface PatientLookupParts {
  lookup: Pick<RegistryLookup, 'findMoved'>
  silent: Pick<SilentRegistries, 'silent'>
  times: Pick<AnswerTimes, 'usualMs'>
  words: Pick<RegistryWords, 'ask' | 'disbelieve'>
}

export interface PatientOptions extends LookupOptions {
  /** Called once at most, with the answer that comes after the mount has given up; it rejects with the error where there is none. */
  onLate: (answer: Promise<ResolvedImage | undefined>) => void
}

/**
 * Asks a registry for a tag of which an image is known: no longer than it usually takes. The question goes on beside the mount,
 * which uses the known image then, and what comes is for the next mount.
 */
export class PatientLookup {
  readonly #parts: PatientLookupParts
  readonly #overdue: ExpiringMap<string>
  readonly #now: () => number

  /** @param options `now`: the clock (ms) */
  constructor(parts: PatientLookupParts, { now }: { now: () => number }) {
    this.#parts = parts
    this.#now = now
    this.#overdue = new ExpiringMap({ maxEntries: maxOverdue, now })
  }

  /**
   * As {@link RegistryLookup.findMoved}, whose budget is the most that it waits, also for what comes after the first answer.
   * @throws timeout too where the registry has not answered within its usual time; the question goes on
   */
  async findMoved(
    reference: Reference,
    record: ImageRecord,
    { signal, answerMs, onLate }: PatientOptions,
  ): Promise<ResolvedImage | undefined> {
    const { lookup, silent, words } = this.#parts
    const registry = registryOf(reference)
    const key = keyOf(reference, record)
    const answered = Promise.withResolvers<'answered' | 'late'>()
    const ended = new AbortController()
    const patience = new Patience(
      { giveUp: () => answered.resolve('late'), now: this.#now },
      { usualMs: this.#parts.times.usualMs(registry), budgetMs: answerMs, isOverdue: this.#overdue.has(key) },
    )
    const asked = lookup.findMoved(reference, record, {
      signal: ended.signal,
      answerMs,
      onAnswer: () => answered.resolve('answered'),
    })
    asked.catch(() => answered.resolve('answered'))
    const asking = new AbortController()
    void words.ask(registry, { signal: asking.signal, onWord: (word) => patience.heard(word) })
    try {
      if ((await orAbort(answered.promise, signal)) === 'late') {
        silent.silent(registry)
        onLate(this.#settle(asked, key))
        const waited = `${registry} did not answer within ${patience.ms / 1000} s`
        throw new P2pfsError('timeout', waited, { registry })
      }
      const moved = await orAbort(asked, signal)
      this.#overdue.delete(key)
      if (patience.isToldSilent) words.disbelieve(registry)
      return moved
    } catch (error) {
      if (signal.aborted) ended.abort(signal.reason)
      throw error
    } finally {
      patience.end()
      asking.abort()
    }
  }

  /** The next mount waits for the answer where this one should have had it. */
  async #settle(asked: Promise<ResolvedImage | undefined>, key: string): Promise<ResolvedImage | undefined> {
    const isOverdue = (): void => this.#overdue.set(key, true, overdueMs)
    try {
      const moved = await asked
      if (moved !== undefined) isOverdue()
      return moved
    } catch (error) {
      if (isP2pfsError(error, 'denied', 'missing')) isOverdue()
      throw error
    }
  }
}

/** How long is waited for one answer. It changes with what members say meanwhile. */
class Patience {
  readonly #giveUp: () => void
  readonly #budgetMs: number
  readonly #now: () => number
  readonly #sinceMs: number
  readonly #isOwn: boolean
  readonly #isOverdue: boolean
  #toldUsualMs = 0
  #timer: NodeJS.Timeout | undefined
  ms: number
  isToldSilent = false

  /** @param options `usualMs`: as this host has seen it; `isOverdue`: the whole budget is given */
  constructor(
    { giveUp, now }: { giveUp: () => void; now: () => number },
    { usualMs, budgetMs, isOverdue }: { usualMs: number | undefined; budgetMs: number; isOverdue: boolean },
  ) {
    this.#giveUp = giveUp
    this.#now = now
    this.#sinceMs = now()
    this.#budgetMs = budgetMs
    this.#isOwn = usualMs !== undefined
    this.#isOverdue = isOverdue
    this.ms = isOverdue ? budgetMs : this.#within(usualMs)
    this.#start()
  }

  /** Takes in the word of a member. This host's own experience counts more; of members the slowest counts. */
  heard({ isSilent, usualMs }: RegistryWord): void {
    if (this.isToldSilent || this.#isOverdue) return
    this.isToldSilent = isSilent
    if (isSilent) this.ms = Math.min(patience.toldMs, this.#budgetMs)
    else if (this.#isOwn || usualMs === undefined) return
    else this.ms = this.#within((this.#toldUsualMs = Math.max(this.#toldUsualMs, usualMs)))
    this.#start()
  }

  end(): void {
    clearTimeout(this.#timer)
  }

  #within(usualMs: number | undefined): number {
    const ms = usualMs === undefined ? patience.firstMs : patience.factor * usualMs + patience.addedMs
    return Math.min(Math.max(ms, patience.leastMs), this.#budgetMs)
  }

  #start(): void {
    clearTimeout(this.#timer)
    const leftMs = Math.max(0, this.ms - (this.#now() - this.#sinceMs))
    // On a host that was busy the answer may have come: it is looked at first.
    this.#timer = setTimeout(() => setImmediate(this.#giveUp), leftMs)
  }
}

const keyOf = (reference: Reference, name: ImageName): string =>
  `${callerOf(reference)?.key ?? ''} ${imageKey({ ...name, reference: formatReference(reference) })}`
