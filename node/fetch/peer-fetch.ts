import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Clock } from '../base/clock.ts'
import type { Urgency } from '../base/urgency.ts'
import type { Holders, Reader } from './holders.ts'
import type { ChunkRequest, Delivery, FetchPriority } from '../model/chunk-request.ts'
import type { StreamClass } from '../peers/chunk/client.ts'
import { HeldElsewhereError } from '../peers/chunk/stream.ts'
import { standings, type PeerStanding } from '../peers/peer-standing.ts'

/**
 * A read that has waited for its chunk so long asks the registry too, whatever the peers do (ms): a reader notices, and
 * the registry still answers within three seconds.
 */
const lateMs = 2_000
/**
 * The same, where the peer delivers what the host asked it for before, and the chunk waits for its turn (ms): on a slow
 * link that is shared, asking twice would make all wait longer.
 */
const queuedLateMs = 10_000
/** After so long another holder is asked too, whether the first gets on with other chunks or not (ms); and again. */
const nextHolderMs = 2_000
/** A timer that is so late (ms) tells of a pause of this host, not of its peers. */
const ownPauseMs = 250
/**
 * A reader that does not say that it reads is passed over after this time (ms), though few have been so lately. For a chunk that
 * nobody waits for it has the longer time since it last got on with anything, or four times what members usually take: a host
 * that is short of a core may be silent for seconds, and a boot has all its chunks passed over at once, each a second time from
 * the registry. A member that is gone is known by then.
 */
const slowReader = { ms: 1_000, unawaitedMs: 4_000, factor: 4 } as const
/** A chunk that nobody waits for is asked of the registry too after this time (ms), though its reader says that it is coming, or gets on with others. */
const unawaitedLateMs = 30_000
/** Stewards are asked so many times for one chunk: for a reader, and for another where that one does not deliver. */
const maxQuestions = 3
/** The time for which this host was late is not counted against a reader, up to so much (ms). */
const maxOwnLateMs = 1_000
/** How often the decision is made anew where nothing else happens (ms). */
const recheckMs = 250

/**
 * A holder that owes this host so much already (bytes), half of what a seed has under way, is not asked in the place of the one that has
 * named it: it may be slow, or its upload limited.
 */
const muchBytes = 16 * 1024 * 1024

/** Members that busy holders have named and that are met for one chunk: three answers' worth. */
const maxNamed = 9

export interface PeerFetchOptions {
  signal: AbortSignal
  urgency: Urgency
  priority?: () => FetchPriority
  onRefusal?: (peer: string, error: P2pfsError) => void
  onLate?: () => void
  isReader?: AbortSignal
  /** Given who has been asked and has not answered, at any time until the fetch ends. */
  onBegin?: (asked: () => string[]) => void
}

/** One holder that has been asked and has not answered. */
interface Asked {
  standing: PeerStanding
  wasSilent: boolean
  streamClass: StreamClass
  askedAtMs: number
}

/** The member that has been asked to read the chunk from the registry. */
interface AskedReader {
  id: string
  standing: PeerStanding
  askedAtMs: number
  /** For how long this host has been late since (ms). */
  ownLateMs: number
  isComing: boolean
}

/**
 * Fetches one chunk from its holders.
 *
 * 1. The best holder is asked. One that refuses is followed by the next at once.
 * 2. While somebody waits, the next is asked too when none of those who were asked has got on with any chunk for as long
 *    as peers usually take. The time counts from the last chunk that the peer delivered, to whomever: a slow link that
 *    carries chunks is not asked twice. A holder that is not known as silent is followed only within a budget.
 * 3. After two seconds of waiting the registry is asked too; after the usual time of peers where all holders were silent
 *    before, and at once where they have been for long. Those are asked only after that.
 * 4. Where nobody waits, holders are asked in turn, and the registry too when one of them has been silent.
 * 5. Where nobody holds the chunk, a steward says who reads it: this host, or a member, which is asked to. The registry is
 *    asked too when that member does not say soon that it does, and when somebody has waited for ten seconds: two, within
 *    the budget. Another reader is asked for where that one refuses.
 * 6. A holder that has too much to serve names others, which are asked too. When all of them have said so, the last one is asked
 *    again, and serves the chunk in its turn.
 * 7. The first right answer wins; the wants of the others are given up.
 */
export class PeerFetch {
  readonly #holders: Holders
  readonly #clock: Clock
  readonly #request: ChunkRequest
  readonly #options: PeerFetchOptions
  /** Ends what holders were asked for. One for all of them, and no composed signal: most fetches ask one, which delivers. */
  readonly #over = new AbortController()
  readonly #tried = new Set<string>()
  readonly #asked = new Map<string, Asked>()
  #reader: AskedReader | undefined
  /** Connected members that busy holders have named, and how many have been named in all. */
  readonly #named = new Set<string>()
  #namedInAll = 0
  /** Named members to which this host is connecting. */
  #meeting = 0
  /** Holders that have sent this fetch to others, the last one last: it has the least to serve, most likely. */
  readonly #busy: string[] = []
  #isAskingSteward = false
  #questions = 0
  readonly #startedAtMs: number
  #urgentAtMs: number | undefined
  #lastAskedAtMs = -Infinity
  #isLate = false
  #delivery: Delivery | undefined
  #failure: unknown
  #wake = Promise.withResolvers<void>()

  constructor(
    { holders, clock }: { holders: Holders; clock: Clock },
    request: ChunkRequest,
    options: PeerFetchOptions,
  ) {
    this.#holders = holders
    this.#clock = clock
    this.#request = request
    this.#options = options
    this.#startedAtMs = clock.now()
  }

  /** @throws missing where no holder delivers it; the signal's reason */
  async run(): Promise<Delivery> {
    const { signal, urgency, isReader, onBegin } = this.#options
    onBegin?.(() => [...this.#asked.keys(), ...(this.#reader === undefined ? [] : [this.#reader.id])])
    const onAbort = (): void => {
      this.#over.abort(signal.reason)
      this.#wake.resolve()
    }
    signal.addEventListener('abort', onAbort, { once: true })
    if (urgency.isUrgent) this.#becomeUrgent()
    else urgency.onRaise(() => this.#becomeUrgent())
    const onReading = (): void => this.#wake.resolve()
    isReader?.addEventListener('abort', onReading, { once: true })
    try {
      for (;;) {
        signal.throwIfAborted()
        if (this.#delivery !== undefined) return this.#delivery
        if (this.#failure !== undefined) throw this.#failure
        const waitMs = this.#act()
        if (waitMs > 0) await this.#wait(waitMs)
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      isReader?.removeEventListener('abort', onReading)
      if (this.#asked.size > 0 || this.#reader !== undefined)
        this.#over.abort(new P2pfsError('closed', 'another source has delivered the chunk'))
    }
  }

  #becomeUrgent(): void {
    this.#urgentAtMs = this.#clock.now()
    this.#holders.countDemand()
    this.#wake.resolve()
  }

  /**
   * Does what is due. @returns how long nothing else is (ms), unless something happens
   * @throws missing where nobody is left to be asked
   */
  #act(): number {
    const { digest } = this.#request
    const next = this.#holders.next(this.#request, this.#tried, this.#named)
    if (this.#reader !== undefined && this.#asked.size === 0 && next === undefined) return this.#waitForReader()
    if (this.#asked.size === 0) {
      if (next === undefined && this.#meeting > 0 && this.#urgentAtMs === undefined) return Infinity
      if (next === undefined || next.standing.isSilent || next.underWayBytes >= muchBytes) {
        const busy = this.#busy.pop()
        if (busy !== undefined) {
          this.#ask(busy, { waits: true })
          return 0
        }
      }
      if (next === undefined) {
        if (this.#isAskingSteward && !this.#isReader()) return Infinity
        const reader = this.#isReader() ? 'registry' : this.#holders.reader(this.#request)
        if (reader === 'registry') throw new P2pfsError('missing', 'no peer delivers the chunk', { digest })
        if (reader !== undefined && !this.#tried.has(reader.id)) {
          this.#askReader(reader)
          return 0
        }
        if (this.#questions >= maxQuestions)
          throw new P2pfsError('missing', 'no member reads the chunk for this host', { digest })
        this.#askSteward()
        return Infinity
      }
      const leftMs = next.standing.current === standings.lost ? this.#afterRegistry() : 0
      if (leftMs > 0) return leftMs
      this.#ask(next.id)
      return 0
    }
    if (this.#urgentAtMs === undefined) return Infinity
    const now = this.#clock.now()
    if (!this.#isLate && this.#isTimeForRegistry(this.#urgentAtMs, next)) {
      this.#becomeLate()
      return 0
    }
    if (next === undefined) return recheckMs
    const quietMs = now - this.#lastSignMs()
    const isOver = now - Math.max(this.#lastAskedAtMs, this.#urgentAtMs) >= nextHolderMs && !this.#isQueued()
    if (!isOver && quietMs < this.#usualMs()) return Math.min(this.#usualMs() - quietMs, recheckMs)
    if (!isOver && !this.#allSilent() && !this.#holders.mayAskAgain()) return recheckMs
    this.#ask(next.id)
    return 0
  }

  /** @returns how long nothing else is due (ms), unless something happens */
  #waitForReader(): number {
    const { standing, askedAtMs, ownLateMs, isComing } = this.#reader!
    if (this.#isLate) return Infinity
    const now = this.#clock.now()
    if (this.#isReader()) {
      this.#becomeLate()
      return Infinity
    }
    if (!isComing) {
      const { comingMs } = this.#holders
      const isUrgent = this.#urgentAtMs !== undefined
      // Whoever comes to wait for a chunk of a boot lets its reader answer that first.
      const sinceMs = Math.max(askedAtMs, this.#urgentAtMs ?? 0) + Math.min(ownLateMs, maxOwnLateMs)
      const lastMs = sinceMs + (isUrgent ? slowReader.ms : unawaitedLateMs)
      const silenceMs = isUrgent ? comingMs : Math.max(slowReader.unawaitedMs, slowReader.factor * comingMs)
      // A member that gets on with other chunks is there, and comes to this one.
      const dueMs = Math.min(lastMs, Math.max(sinceMs, standing.lastSignMs) + silenceMs)
      if (now < dueMs) return dueMs - now
      if (isUrgent && now < lastMs && !this.#holders.mayPassOver()) return Math.min(recheckMs, lastMs - now)
      this.#becomeLate()
      return Infinity
    }
    if (this.#urgentAtMs === undefined) {
      const leftMs = askedAtMs + unawaitedLateMs - now
      if (leftMs > 0) return leftMs
      this.#becomeLate()
      return Infinity
    }
    const waitedMs = now - this.#urgentAtMs
    if (waitedMs < lateMs) return lateMs - waitedMs
    if (waitedMs >= queuedLateMs) standing.failed()
    else if (!this.#holders.mayAskAgain()) return recheckMs
    this.#becomeLate()
    return Infinity
  }

  /** Whether another member has asked this host to read the chunk. */
  #isReader(): boolean {
    return this.#options.isReader?.aborted === true
  }

  #askSteward(): void {
    this.#questions++
    this.#isAskingSteward = true
    void this.#holders.findReader(this.#request, this.#options.urgency).then(() => {
      this.#isAskingSteward = false
      this.#wake.resolve()
    })
  }

  #askReader(reader: Reader): void {
    const { id, standing } = reader
    this.#tried.add(id)
    const asked = { id, standing, askedAtMs: this.#clock.now(), ownLateMs: 0, isComing: false }
    this.#reader = asked
    const { signal } = this.#over
    const onComing = (): void => {
      if (asked.isComing) return
      asked.isComing = true
      this.#wake.resolve()
    }
    const { urgency } = this.#options
    const asking = this.#holders.askReader(reader, this.#request, {
      signal,
      urgency,
      priority: this.#priority,
      onComing,
    })
    this.#settle(id, asking, signal, () => (this.#reader = undefined))
  }

  /** The registry is asked before a holder that is lost. @returns how long the holder waits for that (ms) */
  #afterRegistry(): number {
    this.#becomeLate()
    return this.#startedAtMs + this.#usualMs() - this.#clock.now()
  }

  #isTimeForRegistry(urgentAtMs: number, next: { standing: PeerStanding } | undefined): boolean {
    const waitedMs = this.#clock.now() - urgentAtMs
    const wereSilent = [...this.#asked.values()].every(({ wasSilent, standing }) => wasSilent && standing.isSilent)
    const onlySilent = wereSilent && (next === undefined || next.standing.isSilent)
    if (onlySilent) return waitedMs >= this.#usualMs()
    if (waitedMs < lateMs) return false
    return waitedMs >= queuedLateMs || !this.#isQueued() || this.#holders.mayAskAgain()
  }

  #becomeLate(): void {
    if (this.#isLate) return
    this.#isLate = true
    this.#options.onLate?.()
  }

  /** When the first of those who were asked began to let this fetch wait (ms of the clock): the last sign of any. */
  #lastSignMs(): number {
    let lastMs = -Infinity
    for (const { standing, askedAtMs } of this.#asked.values())
      lastMs = Math.max(lastMs, askedAtMs, standing.lastSignMs)
    return lastMs
  }

  #allSilent(): boolean {
    return [...this.#asked.values()].every(({ standing }) => standing.isSilent)
  }

  /** Whether the chunk waits for its turn at a peer that delivers. */
  #isQueued(): boolean {
    return [...this.#asked].some(([id, { streamClass, askedAtMs }]) =>
      this.#holders.isBusyWithEarlier(id, streamClass, askedAtMs),
    )
  }

  #usualMs(): number {
    return this.#holders.usualMs(this.#streamClass)
  }

  get #priority(): FetchPriority {
    if (this.#urgentAtMs !== undefined) return 'demand'
    return this.#options.priority?.() ?? 'background'
  }

  /** The peer protocol has one stream for each of these two. */
  get #streamClass(): StreamClass {
    return this.#urgentAtMs === undefined ? 'background' : 'demand'
  }

  #ask(id: string, { waits = false }: { waits?: boolean } = {}): void {
    const askedAtMs = this.#clock.now()
    const streamClass = this.#streamClass
    this.#tried.add(id)
    const standing = this.#holders.standing(id)
    if (standing === undefined) return
    this.#asked.set(id, { standing, wasSilent: standing.isSilent, streamClass, askedAtMs })
    this.#lastAskedAtMs = askedAtMs
    const { signal } = this.#over
    const { urgency } = this.#options
    const isNamed = this.#named.has(id)
    const asked = { signal, streamClass, urgency, priority: this.#priority, waits, isNamed }
    const asking = this.#holders.ask(id, this.#request, asked)
    this.#settle(id, asking, signal, () => this.#asked.delete(id))
  }

  #settle(id: string, asking: Promise<Delivery>, signal: AbortSignal, onOver: () => void): void {
    asking
      .then(
        (delivery) => {
          this.#delivery ??= delivery
        },
        (error: unknown) => {
          if (signal.aborted) return
          if (!isP2pfsError(error)) this.#failure ??= error
          else this.#options.onRefusal?.(id, error)
          if (error instanceof HeldElsewhereError) this.#sentElsewhere(id, error.holders)
          // A fetch that has waited in vain once does not wait for others in turn.
          if (isP2pfsError(error, 'timeout')) this.#becomeLate()
        },
      )
      .finally(() => {
        onOver()
        this.#wake.resolve()
      })
  }

  #sentElsewhere(id: string, holders: readonly string[]): void {
    this.#busy.push(id)
    const { signal } = this.#over
    for (const holder of holders) {
      if (this.#tried.has(holder) || this.#named.has(holder) || this.#namedInAll >= maxNamed) continue
      this.#namedInAll++
      if (this.#holders.standing(holder) !== undefined) {
        this.#named.add(holder)
        continue
      }
      this.#meeting++
      this.#holders
        .meet(holder, { signal })
        .then(
          (isConnected) => {
            if (isConnected) this.#named.add(holder)
          },
          () => undefined,
        )
        .finally(() => {
          this.#meeting--
          this.#wake.resolve()
        })
    }
  }

  async #wait(ms: number): Promise<void> {
    const dueMs = this.#clock.now() + ms
    let cancel: (() => void) | undefined
    const wake = (): void => {
      const lateMs = this.#clock.now() - dueMs
      if (this.#reader !== undefined && lateMs > 0) this.#reader.ownLateMs += lateMs
      // This host has paused: what has come meanwhile is read first.
      if (lateMs > ownPauseMs) cancel = this.#clock.after(recheckMs, () => this.#wake.resolve())
      else this.#wake.resolve()
    }
    if (ms !== Infinity) cancel = this.#clock.after(ms, wake)
    await this.#wake.promise
    cancel?.()
    this.#wake = Promise.withResolvers()
  }
}
