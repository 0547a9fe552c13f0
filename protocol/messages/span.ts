import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import type { Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'

/** A long-lived stream: questions go one way, answers the other way, in the same order. */
export const spanProtocol = '/p2pfs/span/3'

/** Chunks of a span: a few MiB, so that its reader finds neighbours to read in one request. */
export const spanChunks = 32
/** Spans of one group, which have one steward: 512 chunks, so that a layer of up to some 40 MB has one. */
export const groupSpans = 16
/** Questions of one group ask for no more. */
export const maxSpansPerQuestion = groupSpans
/** Bits of the members' hashes that tell the parts of one level apart: a part has eight of the next level. */
export const bitsPerLevel = 3
/** The last level, of cohorts of 7 or 8 bits. The whole region is level 0. */
export const maxLevel = 3
/** Depths in the tree of one level, whose members stand on these from `level * levelDepths` on. With three below each, a tree of 64 members is four deep. */
export const levelDepths = 16
/** The deepest member. */
export const maxDepth = (maxLevel + 1) * levelDepths - 1

/** Longest text of a member's id. */
const maxIdLength = 128
/** A question is shorter: it names two members; an answer names one for each span. */
export const maxSpanMessageBytes = 1024 + maxSpansPerQuestion * (maxIdLength + 16)

const maxUnsigned = 2 ** 32 - 1

/** Asks a steward who reads some spans of one group from the registry. */
export interface SpanQuestion {
  table: Digest
  /** Numbers of spans: chunk `i` of the segment is in span `floor(i / 32)`. */
  spans: readonly number[]
  /** The member that the asker was sent to before, and that did not deliver; undefined where there is none. */
  without: string | undefined
  /** The member that needs them, where the asker is a deputy; undefined where the asker needs them. */
  onBehalfOf?: string | undefined
  /** As what the receiver is asked: 0 as the steward, another as the deputy of its part of that level. */
  level: number
}

/**
 * The place to which a steward sends the asker for one span: to a member that was sent before, or, at depth 0, to the registry.
 * A member's depth is less than that of those who are sent to it.
 */
export interface SpanPlace {
  depth: number
  /** The id; undefined at depth 0. */
  member: string | undefined
}

/** SPEC.md, "Span protocol". */
export function encodeSpanQuestion({ table, spans, without = '', onBehalfOf = '', level }: SpanQuestion): Uint8Array {
  return encodeCbor({ table, spans, without, onBehalfOf, level })
}

/** @throws invalid also where the spans are not of one group */
export function parseSpanQuestion(bytes: Uint8Array): SpanQuestion {
  const what = 'span question'
  const fields = new Fields(parseCbor(bytes, what), what)
  const list = fields.list('spans')
  if (list.length === 0 || list.length > maxSpansPerQuestion)
    throw new P2pfsError('invalid', `${what}: too many spans, or none`)
  const numbers = new Fields(list, what)
  const spans = list.map((_, i) => numbers.unsigned(i, maxUnsigned))
  if (new Set(spans.map((span) => Math.floor(span / groupSpans))).size > 1)
    throw new P2pfsError('invalid', `${what}: spans of several groups`)
  const without = parseId(fields.text('without'), what)
  const onBehalfOf = parseId(fields.text('onBehalfOf'), what)
  return { table: fields.digest('table'), spans, without, onBehalfOf, level: fields.unsigned('level', maxLevel) }
}

export function encodeSpanAnswer(places: readonly SpanPlace[]): Uint8Array {
  return encodeCbor({ places: places.map(({ depth, member = '' }) => [depth, member]) })
}

/** @throws invalid */
export function parseSpanAnswer(bytes: Uint8Array): SpanPlace[] {
  const what = 'span answer'
  const list = new Fields(parseCbor(bytes, what), what).list('places')
  if (list.length > maxSpansPerQuestion) throw new P2pfsError('invalid', `${what}: too many places`)
  return list.map((value) => {
    const fields = new Fields(value, what)
    const depth = fields.unsigned(0, maxDepth)
    const member = parseId(fields.text(1), what)
    if ((depth === 0) !== (member === undefined))
      throw new P2pfsError('invalid', `${what}: a member at depth 0, or none below it`)
    return { depth, member }
  })
}

function parseId(text: string, what: string): string | undefined {
  if (text.length > maxIdLength) throw new P2pfsError('invalid', `${what}: the id of a member is too long`)
  return text === '' ? undefined : text
}
