import type { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import { holds, type Holds } from '../../protocol/messages/location.ts'
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
import type { Location } from './location/location.ts'
import type { Swarms } from './location/swarms.ts'
import type { Membership } from './membership.ts'
import type { Peer } from './peer.ts'
import { TrackedTables, type TrackedTable } from './tracked-tables.ts'

/** How long changes are gathered before they are sent (ms): a fraction of the time that fetching a chunk takes. */
const gatherMs = { small: 20, large: 100 } as const
/**
 * A large region's trackers are asked for members when a segment has been fetched for so long, and at most three times this
 * (ms): most boots have ended, and hosts that start at once do not ask at once.
 */
const joinMs = 1_000

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
  location: Pick<Location, 'isSmall' | 'hold' | 'release' | 'onScale'>
  swarms: Pick<Swarms, 'use' | 'join' | 'joined' | 'seek' | 'leave'>
}

/**
 * Knows who holds which chunks. In a small region this host asks all members when it begins to track a segment; in a
 * large one it asks the members that it is connected to when it begins to fetch a segment, and joins its swarm if that
 * takes long. They answer, and tell it of changes from then on. Nothing is kept of segments that this host does not
 * track.
 */
export class Availability {
  readonly #membership: AvailabilityParts['membership']
  readonly #location: AvailabilityParts['location']
  readonly #swarms: AvailabilityParts['swarms']
  readonly #tables = new TrackedTables()
  readonly #changes = new Map<Digest, Changes>()
  #timer: NodeJS.Timeout | undefined
  /** Segments that came in this turn of the event loop. */
  #fresh: TrackedTable[] = []
  /** Segments of which the members that are connected are asked in the next microtask, and the question about them. */
  #needed: { tables: TrackedTable[]; question: Question } | undefined
  /** Segments whose swarms are still to be joined. */
  readonly #joining = new Map<Digest, NodeJS.Timeout | undefined>()
  readonly #questions = new Map<Digest, Question>()
  /** Members that did not answer the last time. */
  readonly #slow = new ExpiringMap<string>({ maxEntries: limits.connections.inAll })

  constructor({ membership, location, swarms }: AvailabilityParts) {
    this.#membership = membership
    this.#location = location
    this.#swarms = swarms
    location.onScale((isSmall) => this.#scaled(isSmall))
  }

  /**
   * Begins to track a segment that is new on this host. In a small region the members are asked for it in the next
   * microtask; in a large one its trackers are told.
   * @param held the chunks of it that this host holds; its owner keeps it up to date
   */
  announce(id: Digest, held: Bitmap): void {
    const table = this.#tables.add(id, held)
    if (table === undefined) return
    if (!this.#location.isSmall) {
      const level = levelOf(table)
      // A host that comes with much has imported it, and may be the only one; one that begins to fetch may be one of
      // very many.
      return this.#location.hold(id, level, level === holds.much ? 'later' : 'spread')
    }
    for (const { questions } of this.#membership.connected()) questions?.add(table)
    const waiting = this.#prompt()
    if (this.#fresh.length === 0) queueMicrotask(() => this.#ask(waiting))
    this.#fresh.push(table)
  }

  /** Ends the tracking of a segment, and forgets who holds it. */
  forget(id: Digest): void {
    this.flush()
    const table = this.#tables.delete(id)
    if (table === undefined) return
    this.#location.release(id)
    this.#joining.delete(id)
    this.#swarms.leave(id)
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
   * tenth of a second, or when one says that it holds the chunk `index`, where that is given. In a large region the
   * first call for a segment asks the members that are connected.
   */
  async whenAsked(table: Digest, { signal, index }: { signal: AbortSignal; index?: number }): Promise<void> {
    // A segment of this turn is asked for in the next microtask.
    if (this.#fresh.length > 0) await Promise.resolve()
    if (!this.#location.isSmall) this.#need(table, index)
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

  /** The next message to the peer: questions, which begin with all segments of this host, and answers. */
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
        for (const part of message.tables) this.#takeDelta(peer, part)
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
    const { isSmall } = this.#location
    if (!isSmall) for (const { table } of changed) this.#changed(table)
    for (const { regionClient, feed, holdings } of this.#membership.connected()) {
      if (regionClient === undefined || feed === undefined) continue
      // A host that holds a whole segment has no use for what others hold of it.
      if (!isSmall) for (const { table } of changed) if (holdings.isWhole(table.id)) feed.rest(table)
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
    clearTimeout(this.#needed?.question.timer)
    for (const timer of this.#joining.values()) clearTimeout(timer)
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

  #takeDelta(peer: Peer, part: DeltaPart): void {
    const table = this.#tables.get(part.table)
    if (table === undefined) return
    peer.holdings.change(part)
    // One that held all of it, and was told no changes, is told what this host holds.
    if (part.removed.length > 0 && this.#feedOf(peer).interested(table)) peer.regionClient?.wake()
  }

  /** This host's chunks of the segment have changed, in a large region. */
  #changed(table: TrackedTable): void {
    if (!this.#joining.has(table.id)) this.#location.hold(table.id, levelOf(table), 'spread')
    if (table.held.isFull) this.#swarms.leave(table.id)
  }

  /** Asks for a segment that is fetched, or asks its trackers again where nobody holds what is needed. */
  #need(id: Digest, index: number | undefined): void {
    const table = this.#tables.get(id)
    if (table === undefined || table.held.isFull || this.#joining.has(id)) return
    if (this.#swarms.use(id)) {
      if (index !== undefined && !this.#questions.has(id) && this.holders(id, index).length === 0) this.#swarms.seek(id)
      return
    }
    if (this.#needed === undefined) {
      this.#needed = { tables: [], question: this.#openQuestion(new Set()) }
      queueMicrotask(() => this.#askConnected())
    }
    this.#needed.tables.push(table)
    this.#questions.set(id, this.#needed.question)
    this.#joining.set(id, undefined)
  }

  /** Asks those that are connected; the swarms are joined later, if they are still of use then. */
  #askConnected(): void {
    const { tables, question } = this.#needed!
    this.#needed = undefined
    for (const id of this.#prompt()) question.waiting.add(id)
    for (const { questions, regionClient } of this.#membership.connected()) {
      for (const table of tables) questions?.add(table)
      regionClient?.wake()
    }
    const ids = tables.map(({ id }) => id)
    if (question.waiting.size === 0) for (const id of ids) this.#close(id, question)
    const timer = setTimeout(() => this.#join(ids), joinMs * (1 + 2 * Math.random()))
    timer.unref()
    for (const id of ids) this.#joining.set(id, timer)
  }

  /** Lets the trackers name members, who are asked when they are connected. */
  #join(all: readonly Digest[]): void {
    const tables = all.flatMap((id) => (this.#joining.delete(id) ? (this.#tables.get(id) ?? []) : []))
    for (const table of tables) this.#location.hold(table.id, levelOf(table), 'soon')
    const ids = tables.filter(({ held }) => !held.isFull).map(({ id }) => id)
    if (ids.length > 0) void this.#swarms.join(ids).catch(() => undefined)
  }

  /** The region has become small, or large. */
  #scaled(isSmall: boolean): void {
    if (isSmall) {
      for (const { questions, regionClient } of this.#membership.connected()) {
        questions?.askAll()
        regionClient?.wake()
      }
    } else for (const table of this.#tables) this.#location.hold(table.id, levelOf(table), 'spread')
  }

  /** Ids of the members whose answers a first fetch waits for. */
  #prompt(): Set<string> {
    const prompt = this.#membership
      .members()
      .filter((peer) => peer.regionClient !== undefined && !this.#slow.has(peer.id))
    return new Set(prompt.map(({ id }) => id))
  }

  #questionsOf(peer: Peer): TableQuestions {
    if (peer.questions !== undefined) return peer.questions
    peer.questions = new TableQuestions(this.#tables, { all: this.#location.isSmall })
    if (!this.#location.isSmall) {
      for (const id of [...this.#swarms.joined(), ...this.#joining.keys()]) {
        const table = this.#tables.get(id)
        if (table !== undefined) peer.questions.add(table)
      }
    }
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
    const question = this.#openQuestion(waiting)
    for (const { id } of fresh) this.#questions.set(id, question)
  }

  /** @param waiting members whose answers are waited for */
  #openQuestion(waiting: Set<string>): Question {
    const expire = (): void => {
      for (const id of waiting) this.#slow.set(id, true, limits.questionPenaltyMs)
      for (const [id, open] of this.#questions) if (open === question) this.#close(id, question)
    }
    const timer = setTimeout(expire, limits.questionWaitMs)
    timer.unref()
    const question: Question = { waiting, changed: Promise.withResolvers(), timer }
    return question
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
    this.#timer ??= setTimeout(() => this.flush(), this.#location.isSmall ? gatherMs.small : gatherMs.large)
    let changes = this.#changes.get(table)
    if (changes === undefined) {
      changes = { added: new Set(), removed: new Set() }
      this.#changes.set(table, changes)
    }
    return changes
  }
}

function levelOf({ held }: TrackedTable): Holds {
  return held.ones * 2 >= held.count ? holds.much : holds.some
}
