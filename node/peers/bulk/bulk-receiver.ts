import type { Socket } from 'node:net'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeBulkOrder,
  maxBulkWants,
  type BulkAnswerHeader,
  type BulkGrant,
  type BulkMode,
} from '../../../protocol/messages/bulk.ts'
import { parseHolders } from '../../../protocol/messages/chunk.ts'
import { expandZeroTails } from '../../../protocol/messages/zero-tails.ts'
import { AnswerReader } from './answer-reader.ts'
import { bulkLimits } from './bulk-limits.ts'
import { openBulkSocket } from './bulk-socket.ts'
import type { BulkWant, FromReceiver, MetWant, SentFailure, ToReceiver } from './thread-messages.ts'

/** How often connections are looked at that do not get on (ms). */
const checkMs = 1_000
/**
 * Outcomes are told together: after so long (ms), or when there are so many. The main thread wakes up once for several
 * chunks then, and wants, of which there are many under way, hardly notice.
 */
const together = { ms: 5, outcomes: 32 } as const

export interface BulkReceiverParts {
  /**
   * Writes the file of a chunk, which is right. It may block: meanwhile no connection is read.
   * @returns the file's inode change time (ms)
   * @throws what the disk throws
   */
  keep: (digest: Digest, bytes: Uint8Array) => number
  report: (message: FromReceiver) => void
}

/**
 * Takes chunks from holders: reads, verifies and keeps one at a time, so a slow disk slows the holders, by the windows of
 * their connections, and not the memory, which is one chunk for each. It belongs to a thread that may block.
 */
export class BulkReceiver implements Disposable {
  readonly #parts: BulkReceiverParts
  readonly #mode: BulkMode
  readonly #connections = new Map<number, Receiving>()
  readonly #timer: NodeJS.Timeout
  /** A chunk whose trimmed form has come. */
  readonly #expanded = Buffer.allocUnsafeSlow(maxChunkBytes)

  constructor(parts: BulkReceiverParts, { mode }: { mode: BulkMode }) {
    this.#parts = parts
    this.#mode = mode
    this.#timer = setInterval(() => this.check(), checkMs)
  }

  handle(message: ToReceiver): void {
    if ('open' in message) this.#open(message.open, message.host, message.grant)
    else if ('want' in message) this.#connections.get(message.want)?.want(message.wants)
    else if ('cancel' in message) this.#connections.get(message.cancel)?.order('cancel', message.id)
    else if ('raise' in message) this.#connections.get(message.raise)?.order('raise', message.id)
    else this.#connections.get(message.close)?.end(new P2pfsError('closed', 'no longer needed'))
  }

  /**
   * Gives up connections that have not got on for too long, and closes those that nobody needs. It runs by itself once a
   * second. Checks are counted, not time: those of a thread that was blocked are not made up for.
   */
  check(): void {
    for (const connection of this.#connections.values()) connection.check()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    for (const connection of this.#connections.values()) connection.end(new P2pfsError('closed', 'stopped'))
  }

  #open(key: number, host: string, grant: BulkGrant): void {
    const connection = new Receiving(
      this.#parts,
      { key, mode: this.#mode, host, grant, expanded: this.#expanded },
      () => this.#connections.delete(key),
    )
    this.#connections.set(key, connection)
  }
}

/** One connection to a holder. */
class Receiving {
  readonly #parts: BulkReceiverParts
  readonly #key: number
  readonly #socket: Socket
  readonly #reader: AnswerReader
  readonly #wants = new Map<number, BulkWant>()
  readonly #onEnd: () => void
  readonly #expanded: Uint8Array
  #met: MetWant[] = []
  #telling: NodeJS.Timeout | undefined
  /** Wants that somebody waits for. */
  readonly #raised = new Set<number>()
  #isOpen = false
  #isOver = false
  /** Checks since the last answer, while one is owed; since the last want otherwise. */
  #quietChecks = 0

  constructor(
    parts: BulkReceiverParts,
    {
      key,
      mode,
      host,
      grant,
      expanded,
    }: { key: number; mode: BulkMode; host: string; grant: BulkGrant; expanded: Uint8Array },
    onEnd: () => void,
  ) {
    this.#parts = parts
    this.#key = key
    this.#expanded = expanded
    this.#onEnd = onEnd
    this.#reader = new AnswerReader({
      onHeader: (header) => this.#expect(header),
      onAnswer: (header, bytes) => this.#take(header, bytes),
    })
    this.#socket = openBulkSocket(
      { mode, host, grant },
      {
        onOpen: () => {
          this.#isOpen = true
          this.#quietChecks = 0
          parts.report({ opened: key })
        },
        target: () => this.#reader.target(),
        onRead: (lengthBytes) => this.#read(lengthBytes),
      },
    )
    this.#socket
      .on('error', (error) => this.end(error))
      .on('end', () => this.end(new P2pfsError('unavailable', 'the holder closed the connection')))
      .on('close', () => this.end(new P2pfsError('unavailable', 'the connection is lost')))
  }

  want(wants: readonly BulkWant[]): void {
    if (this.#wants.size === 0) this.#quietChecks = 0
    for (const want of wants) this.#wants.set(want.id, want)
    if (this.#wants.size > maxBulkWants) throw new TypeError('more wants than the protocol allows')
    const orders = wants.map(({ id, digest, isLast, waits = false }) =>
      encodeBulkOrder({ order: isLast === true ? 'last' : 'want', id, digest, waits }),
    )
    this.#socket.write(Buffer.concat(orders))
  }

  order(order: 'cancel' | 'raise', id: number): void {
    if (!this.#wants.has(id)) return
    if (order === 'raise') this.#raised.add(id)
    this.#socket.write(encodeBulkOrder({ order, id }))
  }

  check(): void {
    this.#quietChecks++
    const quietMs = (this.#quietChecks - 1) * checkMs
    if (!this.#isOpen) {
      if (quietMs >= bulkLimits.openMs) this.end(new P2pfsError('timeout', 'the holder cannot be reached in time'))
    } else if (this.#wants.size > 0) {
      if (quietMs >= bulkLimits.stallMs) this.end(new P2pfsError('timeout', 'the holder brings no chunk in time'))
    } else if (quietMs >= bulkLimits.idleMs) this.end(new P2pfsError('closed', 'nothing was wanted for a while'))
  }

  /** Ends the connection, with all that is wanted of it. */
  end(error: Error): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#reportMet()
    this.#socket.destroy()
    this.#onEnd()
    this.#parts.report({ closed: this.#key, failure: failureOf(error) })
  }

  #read(lengthBytes: number): void {
    if (this.#isOver) return
    try {
      this.#reader.advance(lengthBytes)
    } catch (error) {
      this.end(error as Error)
    }
  }

  /** @throws invalid where nobody asked for it, or for a chunk of another length */
  #expect({ id, status, lengthBytes }: BulkAnswerHeader): void {
    const want = this.#wants.get(id)
    if (want === undefined) throw new P2pfsError('invalid', 'peer answers what it was not asked')
    const isRight =
      status === 'elsewhere' || (status === 'chunk' ? lengthBytes === want.lengthBytes : lengthBytes < want.lengthBytes)
    if (!isRight) throw new P2pfsError('invalid', 'peer sent other bytes than the chunk')
  }

  /** @throws invalid for other bytes than the chunk's */
  #take({ id, status }: BulkAnswerHeader, sent: Uint8Array): void {
    const want = this.#wants.get(id)!
    if (status === 'chunk') this.#takeChunk(want, sent)
    else if (status === 'trimmed') {
      const chunk = this.#expanded.subarray(0, want.lengthBytes)
      expandZeroTails(sent, chunk)
      this.#takeChunk(want, chunk)
    } else if (status === 'elsewhere') this.#meet({ id, outcome: status, holders: othersOf(sent) })
    else this.#meet({ id, outcome: status })
  }

  /** @throws invalid for other bytes than the chunk's */
  #takeChunk({ id, digest }: BulkWant, bytes: Uint8Array): void {
    if (digestOf(bytes) !== digest) throw new P2pfsError('invalid', 'peer sent other bytes than the chunk')
    this.#meet(this.#keep(id, digest, bytes))
  }

  #meet(met: MetWant): void {
    this.#wants.delete(met.id)
    this.#quietChecks = 0
    this.#note(met)
  }

  #keep(id: number, digest: Digest, bytes: Uint8Array): MetWant {
    try {
      return { id, outcome: 'kept', changedAtMs: this.#parts.keep(digest, bytes) }
    } catch (error) {
      const { message, code } = error as NodeJS.ErrnoException
      this.#parts.report({ unwritable: { message, errno: code } })
      return { id, outcome: 'unkept' }
    }
  }

  #note(met: MetWant): void {
    this.#met.push(met)
    const isAwaited = this.#raised.delete(met.id) || this.#wants.size === 0
    if (isAwaited || this.#met.length >= together.outcomes) this.#reportMet()
    else this.#telling ??= setTimeout(() => this.#reportMet(), together.ms)
  }

  #reportMet(): void {
    clearTimeout(this.#telling)
    this.#telling = undefined
    if (this.#met.length === 0) return
    this.#parts.report({ met: this.#key, wants: this.#met })
    const kept = this.#met.filter(({ outcome }) => outcome === 'kept')
    this.#met = []
    // So the holder knows whom it may name to others.
    if (kept.length > 0) this.#socket.write(Buffer.concat(kept.map(({ id }) => encodeBulkOrder({ order: 'kept', id }))))
  }
}

/** @throws invalid where none is named */
function othersOf(names: Uint8Array): readonly string[] {
  const holders = parseHolders(names)
  if (holders.length === 0) throw new P2pfsError('invalid', 'peer sends to others, and names none')
  return holders
}

export function failureOf(error: Error): SentFailure {
  return { code: isP2pfsError(error) ? error.code : 'unavailable', message: error.message }
}
