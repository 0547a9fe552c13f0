import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import {
  deltaMessages,
  haveMessages,
  haveParts,
  isFullHave,
  type DeltaPart,
  type HaveDelta,
  type HavePart,
  type Query,
  type RegionMessage,
} from '../../protocol/messages/region.ts'
import { NumberSet } from '../base/number-set.ts'
import { limits } from './limits.ts'
import type { TrackedTable, TrackedTables } from './tracked-tables.ts'

/**
 * Tells one peer of this host's chunks. The peer hears only of segments that it has shown interest in, by a query or a
 * have. News that it is still owed is kept as numbers of segments, and read when the peer takes more: a slow peer costs two
 * bits for each segment.
 */
export class HoldingsFeed {
  readonly #tables: TrackedTables
  /** Segments of which the peer has been told what this host holds: it hears of their changes. */
  readonly #told = new NumberSet()
  /** Segments of which it will be told. */
  readonly #owed = new NumberSet()
  #cursor = 0
  /** Parts of a segment that is being told and that is larger than a message. */
  #parts: HavePart[] = []
  #openQueries = 0

  constructor(tables: TrackedTables) {
    this.#tables = tables
  }

  /**
   * The peer asks. Segments that this host does not track are ignored. @throws invalid for more queries than the
   * protocol allows
   */
  asked(tables: readonly Digest[]): void {
    if (this.#openQueries >= limits.region.openQueries)
      throw new P2pfsError('invalid', 'peer asks more than the protocol allows before it is answered')
    this.#openQueries++
    for (const id of tables) {
      const table = this.#tables.get(id)
      if (table !== undefined) this.#owed.add(table.number)
    }
  }

  /**
   * The peer has told what it holds of the segment, so it tracks it. @returns whether it is owed the same of this host
   * now
   */
  interested({ number }: TrackedTable): boolean {
    if (this.#told.has(number) || this.#owed.has(number)) return false
    this.#owed.add(number)
    return true
  }

  /** The changes that the peer has to hear of, as messages. */
  changes(changed: readonly { table: TrackedTable; part: DeltaPart }[]): HaveDelta[] {
    // Parts that have been read and not sent yet are older than the change: they are read again.
    for (const { table: id } of this.#parts) {
      const part = changed.find(({ table }) => table.id === id)
      if (part !== undefined) this.#owed.add(part.table.number)
    }
    return deltaMessages(
      changed
        .filter(({ table: { number } }) => this.#told.has(number) && !this.#owed.has(number))
        .map(({ part }) => part),
    )
  }

  /** The peer holds all of the segment: it hears no changes of it, until it shows {@link interested} again. */
  rest({ number }: TrackedTable): void {
    this.#told.delete(number)
  }

  /** The peer did not take changes of these segments: it is told of them anew. */
  owe(tables: Iterable<TrackedTable>): void {
    for (const { number } of tables) if (this.#told.has(number)) this.#owed.add(number)
  }

  /** This host no longer tracks the segment. */
  forget({ id, number }: TrackedTable): void {
    this.#told.delete(number)
    this.#owed.delete(number)
    this.#parts = this.#parts.filter(({ table }) => table !== id)
  }

  /** The next message: haves, and when none is owed, that a query is answered. */
  next(): RegionMessage | undefined {
    while (this.#owed.size > 0 && !isFullHave(this.#parts)) {
      const number = this.#owed.next(this.#cursor) ?? this.#owed.next(0)!
      this.#cursor = number + 1
      this.#owed.delete(number)
      this.#told.add(number)
      const table = this.#tables.at(number)
      if (table !== undefined) this.#parts.push(...haveParts(table.id, table.held))
    }
    const [message] = haveMessages(this.#parts)
    if (message !== undefined) {
      this.#parts = this.#parts.slice(message.tables.length)
      return message
    }
    if (this.#openQueries === 0) return undefined
    this.#openQueries--
    return { type: 'answered' }
  }
}

/**
 * Asks one peer which chunks of this host's segments it holds. In a small region it asks about all of them when the peer
 * connects, then about the new ones; in a large one about those that this host fetches.
 */
export class TableQuestions {
  readonly #tables: TrackedTables
  /** Segments with lower numbers than this have been asked about. */
  #asked: number
  #end: number
  /** Segments that came since. They are asked for first, because somebody may be about to read them. */
  #fresh: TrackedTable[] = []
  readonly #open: Digest[][] = []

  /** @param options `all`: whether the peer is asked for all segments */
  constructor(tables: TrackedTables, { all }: { all: boolean }) {
    this.#tables = tables
    this.#end = tables.numbers
    this.#asked = all ? 0 : this.#end
  }

  /** The peer is to be asked for all segments, from the first on. */
  askAll(): void {
    this.#asked = 0
    this.#end = this.#tables.numbers
  }

  /** The peer is to be asked for another segment. */
  add(table: TrackedTable): void {
    // It is asked for with all others.
    if (table.number < this.#end && table.number >= this.#asked) return
    this.#fresh.push(table)
    // A peer that does not answer keeps no more waiting than there are segments.
    if (this.#fresh.length > 2 * this.#tables.size)
      this.#fresh = this.#fresh.filter((waiting) => this.#tables.get(waiting.id) === waiting)
  }

  /** The next question; undefined where there is none, or the peer has to answer first. */
  next(): Query | undefined {
    if (this.#open.length >= limits.region.openQueries) return undefined
    const tables: Digest[] = []
    for (const { id } of this.#fresh.splice(0, limits.region.tablesPerQuery))
      if (this.#tables.get(id) !== undefined) tables.push(id)
    for (; this.#asked < this.#end && tables.length < limits.region.tablesPerQuery; this.#asked++) {
      const table = this.#tables.at(this.#asked)
      if (table !== undefined) tables.push(table.id)
    }
    if (tables.length === 0) return undefined
    this.#open.push(tables)
    return { type: 'query', tables }
  }

  /** The peer has answered its oldest query. @returns the segments of it @throws invalid where it was asked nothing */
  answered(): readonly Digest[] {
    const tables = this.#open.shift()
    if (tables === undefined) throw new P2pfsError('invalid', 'peer answers what it was not asked')
    return tables
  }
}
