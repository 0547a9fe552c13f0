import type { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import type {
  Answered,
  DeltaPart,
  Have,
  HaveDelta,
  HavePart,
  Query,
  RegionMessage,
} from '../../protocol/messages/region.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import { orAbort } from '../base/single-flight.ts'
import { HoldingsFeed, TableQuestions } from './announcements.ts'
import { limits } from './limits.ts'
import type { Membership } from './membership.ts'
import type { Peer } from './peer.ts'
import { TrackedTables, type TrackedTable } from './tracked-tables.ts'

/** How long changes are gathered before they are sent (ms): a fraction of the time that fetching a chunk takes. */
const gatherMs = 20

/** Chunks of one segment that came and went since the last message. */
interface Changes {
  added: Set<number>
  removed: Set<number>
}

/** Segments whose holders have been asked for a moment ago. */
interface Question {
  /** Members that have not answered yet, and that a first fetch waits for. */
  waiting: Set<string>
  /** Resolves when somebody has answered, or nobody is waited for any more; a new one stands there then. */
  changed: PromiseWithResolvers<undefined>
  timer: NodeJS.Timeout
}

export interface AvailabilityParts {
  membership: Pick<Membership, 'members' | 'connected'>
}

/**
 * Knows who holds which chunks. When this host begins to track a segment, it asks its members what they hold of it; they
 * answer, and tell it of changes from then on. Nothing is kept of segments that this host does not track.
 */
export class Availability {
  readonly #membership: AvailabilityParts['membership']
  readonly #tables = new TrackedTables()
  readonly #changes = new Map<Digest, Changes>()
  #timer: NodeJS.Timeout | undefined
  /** Segments that came in this turn of the event loop. */
  #fresh: TrackedTable[] = []
  readonly #questions = new Map<Digest, Question>()
  /** Members that did not answer the last time. */
  readonly #slow = new ExpiringMap<string>({ maxEntries: limits.connections.inAll })

  constructor({ membership }: AvailabilityParts) {
    this.#membership = membership
  }

  /**
   * Begins to track a segment that is new on this host, and asks the members for it in the next microtask.
   * @param held the chunks of it that this host holds; its owner keeps it up to date
   */
  announce(id: Digest, held: Bitmap): void {
    const table = this.#tables.add(id, held)
    if (table === undefined) return
    for (const { questions } of this.#membership.connected()) questions?.add(table)
    const waiting = this.#membership
      .members()
      .filter((peer) => peer.regionClient !== undefined && !this.#slow.has(peer.id))
      .map((peer) => peer.id)
    if (this.#fresh.length === 0) queueMicrotask(() => this.#ask(new Set(waiting)))
    this.#fresh.push(table)
  }

  /** Ends the tracking of a segment, and forgets who holds it. */
  forget(id: Digest): void {
    this.flush()
    const table = this.#tables.delete(id)
    if (table === undefined) return
    for (const { holdings, feed } of this.#membership.connected()) {
      holdings.forget(id)
      feed?.forget(table)
    }
  }

  /** Announces chunks that are new on this host. They are gathered for some milliseconds. */
  announceChunks(table: Digest, indexes: readonly number[]): void {
    const { added, removed } = this.#changesOf(table)
    for (const index of indexes) {
      added.add(index)
      removed.delete(index)
    }
  }

  /** Announces that chunks are no longer on this host. They are gathered for some milliseconds. */
  withdrawChunks(table: Digest, indexes: readonly number[]): void {
    const { added, removed } = this.#changesOf(table)
    for (const index of indexes) {
      removed.add(index)
      added.delete(index)
    }
  }

  /** Whether this host holds the chunk of a segment that it tracks. */
  isHeldHere(table: Digest, index: number): boolean {
    const held = this.#tables.get(table)?.held
    return held !== undefined && index < held.count && held.get(index)
  }

  /** Ids of the connected members that say they hold the chunk. */
  holders(table: Digest, index: number): string[] {
    return this.#membership
      .members()
      .filter(({ holdings }) => holdings.has(table, index))
      .map(({ id }) => id)
  }

  /**
   * Resolves at once unless the members have just been asked about the segment: then when all have answered, or after a
   * tenth of a second, or when one says that it holds the chunk `index`, where that is given.
   */
  async whenAsked(table: Digest, { signal, index }: { signal: AbortSignal; index?: number }): Promise<void> {
    // A segment of this turn is asked for in the next microtask.
    if (this.#fresh.length > 0) await Promise.resolve()
    for (;;) {
      const question = this.#questions.get(table)
      if (question === undefined || (index !== undefined && this.holders(table, index).length > 0)) return
      await orAbort(question.changed.promise, signal)
    }
  }

  /** A peer has announced the chunk and does not have it: forgets what it said of this chunk. */
  forgetClaim(peerId: string, table: Digest, index: number): void {
    for (const { id, holdings } of this.#membership.members()) if (id === peerId) holdings.forgetChunk(table, index)
  }

  /** What to tell the peer next: questions, which begin with all segments of this host, and answers. */
  next(peer: Peer): RegionMessage | undefined {
    return this.#questionsOf(peer).next() ?? this.#feedOf(peer).next()
  }

  /** Takes in what a peer says. @throws invalid where it breaks the protocol */
  update(peer: Peer, message: Query | Answered | Have | HaveDelta): void {
    switch (message.type) {
      case 'query':
        this.#feedOf(peer).asked(message.tables)
        peer.regionClient?.wake()
        break
      case 'answered':
        for (const table of this.#questionsOf(peer).answered()) this.#answered(table, peer.id)
        peer.regionClient?.wake()
        break
      case 'have':
        for (const part of message.tables) this.#takeHave(peer, part)
        break
      case 'delta':
        for (const part of message.tables) if (this.#tables.get(part.table) !== undefined) peer.holdings.change(part)
        break
    }
  }

  /** Sends the changes that were gathered so far. */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const changed: { table: TrackedTable; part: DeltaPart }[] = []
    for (const [id, { added, removed }] of this.#changes) {
      const table = this.#tables.get(id)
      if (table !== undefined && added.size + removed.size > 0)
        changed.push({ table, part: { table: id, added: [...added], removed: [...removed] } })
    }
    this.#changes.clear()
    if (changed.length === 0) return
    for (const { regionClient, feed } of this.#membership.connected()) {
      if (regionClient === undefined || feed === undefined) continue
      for (const message of feed.changes(changed)) {
        if (regionClient.send(message)) continue
        feed.owe(changed.map(({ table }) => table))
        break
      }
      regionClient.wake()
    }
  }

  stop(): void {
    clearTimeout(this.#timer)
    for (const { timer } of this.#questions.values()) clearTimeout(timer)
  }

  #takeHave(peer: Peer, part: HavePart): void {
    const table = this.#tables.get(part.table)
    if (table === undefined) return
    peer.holdings.take(part, table.held.count)
    if (this.#feedOf(peer).interested(table)) peer.regionClient?.wake()
    const question = this.#questions.get(part.table)
    if (question === undefined) return
    question.changed.resolve(undefined)
    question.changed = Promise.withResolvers()
  }

  #questionsOf(peer: Peer): TableQuestions {
    peer.questions ??= new TableQuestions(this.#tables)
    return peer.questions
  }

  #feedOf(peer: Peer): HoldingsFeed {
    peer.feed ??= new HoldingsFeed(this.#tables)
    return peer.feed
  }

  /** Asks all peers for the segments of this turn. @param waiting members whose answers a first fetch waits for */
  #ask(waiting: Set<string>): void {
    const fresh = this.#fresh
    this.#fresh = []
    for (const { regionClient } of this.#membership.connected()) regionClient?.wake()
    if (waiting.size === 0) return
    const expire = (): void => {
      for (const id of waiting) this.#slow.set(id, true, limits.questionPenaltyMs)
      for (const { id } of fresh) this.#close(id, question)
    }
    const timer = setTimeout(expire, limits.questionWaitMs)
    timer.unref()
    const question: Question = { waiting, changed: Promise.withResolvers(), timer }
    for (const { id } of fresh) this.#questions.set(id, question)
  }

  #answered(table: Digest, peer: string): void {
    const question = this.#questions.get(table)
    if (question === undefined) return
    question.waiting.delete(peer)
    if (question.waiting.size === 0) this.#close(table, question)
  }

  #close(table: Digest, question: Question): void {
    if (this.#questions.get(table) !== question) return
    this.#questions.delete(table)
    question.changed.resolve(undefined)
    // Others may wait on the same question for a segment that is not answered yet.
    question.changed = Promise.withResolvers()
  }

  #changesOf(table: Digest): Changes {
    this.#timer ??= setTimeout(() => this.flush(), gatherMs)
    let changes = this.#changes.get(table)
    if (changes === undefined) {
      changes = { added: new Set(), removed: new Set() }
      this.#changes.set(table, changes)
    }
    return changes
  }
}
