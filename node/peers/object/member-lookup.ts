import type { Clock } from '../../base/clock.ts'
import type { Peer } from '../peer.ts'
import { standings } from '../peer-standing.ts'

/**
 * While one member sends a large answer, another is asked too after so long (ms): soon where the first sends slowly,
 * which a liar may do on purpose.
 */
const nextMemberMs = { slow: 2_000, fast: 10_000 } as const
/** An answer that comes at this rate is not slow (bytes a millisecond): 2 Mbit/s. */
const fastBytesPerMs = 256
/** Each time that nobody gets on, so many times as many are asked: of 50 silent members all have been after 0.9 s. */
const widen = 4
/** A lookup that asks all members at once takes no longer (ms): a mount makes several. */
const atOnceMs = 3_000
/** How often the decision is made anew where nothing else happens (ms). */
const recheckMs = 25

/** One member's answer to the question, as it comes. */
export interface Asking<T> {
  /** Undefined where the member does not have it; rejects where it does not answer. */
  answer: Promise<T | undefined>
  /** Bytes of it that have come. */
  bytes: () => number
}

export interface MemberLookupParts<T> {
  clock: Clock
  /** How long a member takes to begin its answer, in 95 of 100 cases (ms). */
  usualMs: number
  /** @param signal fires when the answer is of no use any more */
  ask: (member: Peer, signal: AbortSignal) => Asking<T>
}

export interface MemberLookupOptions {
  /** For small answers: all members are asked together. Otherwise one after the other, as each lets the lookup wait. */
  atOnce: boolean
  /** Id of the member to ask first. */
  first?: string | undefined
}

interface Running<T> extends Asking<T> {
  member: Peer
  startedAtMs: number
}

export interface LookupResult<T> {
  /** The first answer that is not undefined. */
  found: T | undefined
  /** Members that there are. */
  members: number
  /** Members that have said that they do not have it. */
  refusals: number
  /** Errors of members that did not answer. */
  failures: { member: Peer; error: unknown; wasSilent: boolean }[]
}

/**
 * Asks the members of the region one question.
 *
 * 1. Members that are awake are asked, those first that have delivered or answered before: all together, or staggered,
 *    the next when none of those who were asked has got on for as long as members usually take, then four more, then
 *    sixteen. A member that says no is followed by another at once.
 * 2. The first answer wins. When all that are awake have said no, those that fell silent a moment ago are asked and
 *    waited for as long as members usually take; those that have been silent again and again only where nobody else has
 *    answered at all.
 * 3. A member that does not begin its answer in time falls silent: it is waited for no longer, here and by all others.
 */
export class MemberLookup<T> {
  readonly #parts: MemberLookupParts<T>
  readonly #options: MemberLookupOptions
  readonly #queue: Peer[]
  readonly #running = new Set<Running<T>>()
  readonly #over = new AbortController()
  readonly #result: LookupResult<T>
  readonly #startedAtMs: number
  #lastStartMs = -Infinity
  #width = 1
  #waitsForSilentUntilMs: number | undefined
  #wake = Promise.withResolvers<void>()

  constructor(parts: MemberLookupParts<T>, members: readonly Peer[], options: MemberLookupOptions) {
    this.#parts = parts
    this.#options = options
    this.#startedAtMs = parts.clock.now()
    this.#result = { found: undefined, members: members.length, refusals: 0, failures: [] }
    const rank = ({ id, standing }: Peer): number =>
      id === options.first ? -1 : standing.current + (standing.hasAnswered ? 0 : 0.5)
    this.#queue = members.toSorted((a, b) => rank(a) - rank(b))
  }

  /** @throws the signal's reason */
  async run(signal: AbortSignal): Promise<LookupResult<T>> {
    const onAbort = (): void => this.#wake.resolve()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      for (;;) {
        signal.throwIfAborted()
        if (this.#act() === 'done') return this.#result
        await this.#wait()
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.#over.abort(new DOMException('the lookup is over', 'AbortError'))
    }
  }

  #act(): 'done' | 'wait' {
    const { atOnce } = this.#options
    const now = this.#parts.clock.now()
    if (this.#result.found !== undefined) return 'done'
    if (atOnce && now - this.#startedAtMs >= atOnceMs) {
      for (const { member } of this.#running) member.standing.fellSilent()
      return 'done'
    }
    if (atOnce) this.#start(this.#queue.length)
    const awake = [...this.#running].filter((running) => this.#isAwake(running))
    const left = this.#queue.filter(({ standing }) => !standing.isSilent).length
    if (left > 0 && (awake.length === 0 || this.#isTimeForNext(awake, now))) {
      this.#start(Math.min(awake.length === 0 ? 1 : this.#width, left))
      if (awake.length > 0) this.#width *= widen
      return 'wait'
    }
    return left > 0 || awake.length > 0 ? 'wait' : this.#waitForSilent(now)
  }

  #isTimeForNext(awake: readonly Running<T>[], now: number): boolean {
    const lastSignMs = Math.max(
      ...awake.map(({ startedAtMs, member }) => Math.max(startedAtMs, member.standing.lastSignMs)),
    )
    if (now - lastSignMs >= this.#parts.usualMs) return true
    const isFast = awake.some(({ bytes, startedAtMs }) => bytes() >= fastBytesPerMs * (now - startedAtMs))
    return now - this.#lastStartMs >= (isFast ? nextMemberMs.fast : nextMemberMs.slow)
  }

  #waitForSilent(now: number): 'done' | 'wait' {
    const isExpected = ({ standing }: Peer): boolean =>
      this.#result.refusals === 0 || standing.current !== standings.lost
    if (this.#waitsForSilentUntilMs === undefined) {
      this.#waitsForSilentUntilMs = (this.#options.atOnce ? this.#startedAtMs : now) + this.#parts.usualMs
      this.#start(this.#queue.filter(isExpected).length)
    }
    const isLeft = [...this.#running].some(({ member }) => isExpected(member))
    return isLeft && now < this.#waitsForSilentUntilMs ? 'wait' : 'done'
  }

  /** Whether its answer is waited for. */
  #isAwake({ member, bytes }: Running<T>): boolean {
    return !member.standing.isSilent || bytes() > 0
  }

  #start(count: number): void {
    const startedAtMs = this.#parts.clock.now()
    for (const member of this.#queue.splice(0, count)) {
      this.#lastStartMs = startedAtMs
      const wasSilent = member.standing.isSilent
      const running: Running<T> = { ...this.#parts.ask(member, this.#over.signal), member, startedAtMs }
      this.#running.add(running)
      running.answer
        .then(
          (answer) => {
            if (answer === undefined) this.#result.refusals++
            else this.#result.found ??= answer
          },
          (error: unknown) => void this.#result.failures.push({ member, error, wasSilent }),
        )
        .finally(() => {
          this.#running.delete(running)
          this.#wake.resolve()
        })
    }
  }

  async #wait(): Promise<void> {
    const cancel = this.#parts.clock.after(recheckMs, () => this.#wake.resolve())
    await this.#wake.promise
    cancel()
    this.#wake = Promise.withResolvers()
  }
}
