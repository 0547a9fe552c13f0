import type { Digest } from '../../../protocol/digest.ts'
import { levelDepths, spanChunks, type SpanPlace } from '../../../protocol/messages/span.ts'

/** Members that are sent to one member: it sends the chunk so many times, and a tree of 1,000 hosts is seven deep. */
const children = 3
/** Members of one span that are remembered. Those who come later are sent to these. */
const maxNodes = 64
/** A span for which nobody asks for so long is forgotten (ms): who has its chunks has told so long before. */
const forgetMs = 60_000
/** Members that are remembered for all spans: some 30 MB. Beyond it the span that was asked for least lately is forgotten. */
const maxNodesInAll = 262_144

/** A member that was sent somewhere for a span. */
interface Node {
  depth: number
  /** The member that it was sent to; undefined: to the registry. */
  parent: string | undefined
  /** Members that were sent to it. */
  children: number
  /** Nobody is sent to it before it asks again. Its depth is kept: it is placed no deeper then. */
  isLost: boolean
}

interface Span {
  nodes: Map<string, Node>
  askedAtMs: number
}

export interface SpanBookParts {
  /** Whether a member is there and not silent, this host included. */
  isHere: (id: string) => boolean
  /** Hosts that hold the chunk as they say, this one perhaps included, for the asker; none where it is not given. */
  holdersOf?: (table: Digest, index: number, asker: string) => readonly string[]
  /** The clock (ms). */
  now: () => number
}

/**
 * A steward's or deputy's memory of whom it sent where, for each span. The first who asks reads the span from the registry; each
 * later one is sent to one that was sent before, so that a tree of relays grows. The steward moves no bytes.
 */
export class SpanBook {
  readonly #parts: SpanBookParts
  /** Those asked for least lately first. */
  readonly #spans = new Map<string, Span>()
  #nodes = 0

  constructor(parts: SpanBookParts) {
    this.#parts = parts
  }

  /** Spans that are remembered. */
  get size(): number {
    return this.#spans.size
  }

  /**
   * The place from which the asker gets the span. One that asks again is sent to the same place, unless that is lost.
   * @param without the member that did not deliver; nobody else is sent to it where the asker was
   */
  place(asker: string, table: Digest, span: number, without?: string): SpanPlace {
    const { nodes } = this.#touch(`${table} ${span}`)
    const before = nodes.get(asker)
    if (before !== undefined) {
      const { parent, depth } = before
      before.isLost = false
      if (parent === undefined) return { depth: 0, member: undefined }
      const node = nodes.get(parent)!
      if (parent === without || !this.#parts.isHere(parent)) node.isLost = true
      else if (!node.isLost) return { depth, member: parent }
    }
    // The first who asks is sent to a holder that it may not have heard of yet.
    if (nodes.size === 0) this.#addHolder(nodes, table, span, asker, without)
    const found = this.#parentFor(asker, before, nodes, without)
    const parent = found?.[0]
    const depth = found === undefined ? 0 : found[1].depth + 1
    if (found !== undefined) found[1].children++
    if (before !== undefined) Object.assign(before, { depth, parent })
    else if (nodes.size < maxNodes || found === undefined) {
      nodes.set(asker, { depth, parent, children: 0, isLost: false })
      this.#nodes++
      this.#makeRoom()
    }
    return { depth, member: parent }
  }

  #addHolder(nodes: Map<string, Node>, table: Digest, span: number, asker: string, without: string | undefined): void {
    const { holdersOf, isHere } = this.#parts
    const holder = holdersOf?.(table, span * spanChunks, asker).find(
      (id) => id !== asker && id !== without && isHere(id),
    )
    if (holder === undefined) return
    nodes.set(holder, { depth: 0, parent: undefined, children: 0, isLost: false })
    this.#nodes++
  }

  /**
   * The first that may have one more below it; where none may, the one with the fewest. Whoever was placed before goes
   * no deeper than it was: what is below it stays below it, and there is no loop.
   */
  #parentFor(
    asker: string,
    before: Node | undefined,
    nodes: Map<string, Node>,
    without: string | undefined,
  ): [string, Node] | undefined {
    const below = before?.depth ?? levelDepths - 1
    let fewest: [string, Node] | undefined
    for (const entry of nodes) {
      const [id, node] = entry
      if (id === asker || id === without || node.isLost || node.depth >= below) continue
      if (!this.#parts.isHere(id)) {
        node.isLost = true
        continue
      }
      if (node.children < children) return entry
      if (fewest === undefined || node.children < fewest[1].children) fewest = entry
    }
    return fewest
  }

  /** The span, as the one that was asked for last. Those that nobody asks for any more are forgotten. */
  #touch(key: string): Span {
    const now = this.#parts.now()
    for (const [other, { askedAtMs }] of this.#spans) {
      if (now - askedAtMs < forgetMs) break
      this.#forget(other)
    }
    const span = this.#spans.get(key) ?? { nodes: new Map<string, Node>(), askedAtMs: now }
    span.askedAtMs = now
    this.#spans.delete(key)
    this.#spans.set(key, span)
    return span
  }

  #makeRoom(): void {
    for (const [key] of this.#spans) {
      if (this.#nodes <= maxNodesInAll) return
      this.#forget(key)
    }
  }

  #forget(key: string): void {
    this.#nodes -= this.#spans.get(key)!.nodes.size
    this.#spans.delete(key)
  }
}
