import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import { maxChunkBytes } from '../chunk-table.ts'
import { digestBytes, digestFromBytes, digestToBytes, type Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'

/** A long-lived stream: wants go one way, chunks the other way, in any order. */
export const chunkProtocol = '/p2pfs/chunk/4'

export const maxWantsPerMessage = 256
/** Wants of one stream that are read and have no answer yet. A server reads no more until it has answered some. */
export const maxOutstandingWants = 1024

const wantBytes = 4 + 1 + 1 + digestBytes
export const maxWantMessageBytes = maxWantsPerMessage * wantBytes
const answerHeaderBytes = 5
export const maxAnswerBytes = answerHeaderBytes + maxChunkBytes

/**
 * Kinds of wants. `held`: a chunk that the server holds. `relay`: the same, or a chunk that the server gets for the asker. `raise`:
 * the want with this id has another priority now; it has no answer of its own.
 */
export const wantKinds = { held: 0, relay: 1, raise: 2 } as const
export type WantKind = keyof typeof wantKinds

/**
 * Why a chunk is wanted, and in which order chunks are fetched and served: a read that somebody waits for, what its reader comes to
 * next, what a boot will read, all others.
 */
export const wantPriorities = ['demand', 'ahead', 'boot', 'background'] as const
export type WantPriority = (typeof wantPriorities)[number]

/** Bits of the byte that tells of a want: two for the kind, two for the priority, and one that says that it waits. */
const priorityShift = 2
const waitsBit = 16
const twoBits = 3

/** Depths in a span's tree of relays are less than this one. */
const depths = 64

export interface Want {
  /** The client chooses it, and the answer repeats it: 0 to 2^32 - 1. */
  id: number
  kind: WantKind
  priority: WantPriority
  /** Whether it waits for its turn, however many come before it: the asker knows nobody else to ask. */
  waits: boolean
  /**
   * For `relay`: how deep the asker is in the span's tree of relays, 0 to 63. A server that is not above it relays nothing: so wants
   * cannot run in a circle. 0 for the other kinds.
   */
  depth: number
  digest: Digest
}

/**
 * `coming` is no answer yet: the server is reading the chunk from the registry. It says so at once, and again each
 * {@link comingMs}.
 */
export const answerStatus = { chunk: 0, missing: 1, busy: 2, coming: 3 } as const
/** How often a server that reads a chunk from the registry says that it still does (ms). */
export const comingMs = 500

export interface ChunkAnswer {
  id: number
  status: keyof typeof answerStatus
  /** The chunk, for status `chunk`; a view into the message. */
  bytes: Uint8Array
  /** For status `coming`: the ids of further wants whose chunks are coming; at most {@link maxOutstandingWants}. */
  more: number[]
  /** For status `busy`: ids of members that hold the chunk, as far as the server knows; at most {@link maxNamedHolders}. */
  holders: string[]
}

/** Members that a busy server names. */
export const maxNamedHolders = 3
/** Longest id of a member (characters). */
const maxIdLength = 128
/** Longest list of holders (bytes): their ids, and a few bytes of CBOR for each and for all. */
export const maxHoldersBytes = 512

/** For each want the id, 32 bit little-endian, a byte for kind, priority and waiting, the depth, and the raw digest; SPEC.md, "Chunk protocol". */
export function encodeWants(wants: readonly Want[]): Uint8Array {
  const bytes = Buffer.alloc(wants.length * wantBytes)
  for (const [i, { id, kind, priority, waits, depth, digest }] of wants.entries()) {
    const offset = i * wantBytes
    bytes.writeUInt32LE(id, offset)
    bytes[offset + 4] = wantKinds[kind] | (wantPriorities.indexOf(priority) << priorityShift) | (waits ? waitsBit : 0)
    bytes[offset + 5] = depth
    bytes.set(digestToBytes(digest), offset + 6)
  }
  return bytes
}

/** @throws invalid */
export function parseWants(bytes: Uint8Array): Want[] {
  if (bytes.length === 0 || bytes.length % wantBytes !== 0 || bytes.length > maxWantMessageBytes)
    throw new P2pfsError('invalid', 'wants: wrong length')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Array.from({ length: bytes.length / wantBytes }, (_, i) => ({
    id: view.getUint32(i * wantBytes, true),
    ...parseKind(bytes[i * wantBytes + 4]!, bytes[i * wantBytes + 5]!),
    digest: digestFromBytes(bytes, i * wantBytes + 6),
  }))
}

const kinds = Object.keys(wantKinds) as WantKind[]

function parseKind(byte: number, depth: number): Pick<Want, 'kind' | 'priority' | 'waits' | 'depth'> {
  const kind = kinds[byte & twoBits]
  if (kind === undefined || byte >= 2 * waitsBit || depth >= depths)
    throw new P2pfsError('invalid', 'wants: unknown kind')
  if (depth > 0 && kind !== 'relay') throw new P2pfsError('invalid', 'wants: a depth where nothing is relayed')
  return { kind, priority: wantPriorities[(byte >> priorityShift) & twoBits]!, waits: (byte & waitsBit) > 0, depth }
}

/** The id, 32 bit little-endian, and the status, one byte. The chunk follows for status `chunk`, and {@link encodeHolders} for `busy`; of `coming`, see {@link encodeComing}. */
export function encodeAnswerHeader(id: number, status: keyof typeof answerStatus): Uint8Array {
  const bytes = Buffer.alloc(answerHeaderBytes)
  bytes.writeUInt32LE(id, 0)
  bytes[4] = answerStatus[status]
  return bytes
}

/** @throws invalid */
export function parseAnswer(bytes: Uint8Array): ChunkAnswer {
  if (bytes.length < answerHeaderBytes) throw new P2pfsError('invalid', 'chunk answer: cut short')
  const id = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true)
  const status = (Object.keys(answerStatus) as (keyof typeof answerStatus)[]).find(
    (name) => answerStatus[name] === bytes[4],
  )
  if (status === undefined) throw new P2pfsError('invalid', 'chunk answer: unknown status')
  const rest = bytes.subarray(answerHeaderBytes)
  const answer = { id, status, bytes: rest.subarray(0, 0), more: [], holders: [] }
  if (status === 'busy') return { ...answer, holders: parseHolders(rest) }
  if (status === 'coming') return { ...answer, more: parseMore(rest) }
  if (status !== 'chunk' && rest.length > 0) throw new P2pfsError('invalid', 'chunk answer: bytes without a chunk')
  return { ...answer, bytes: rest }
}

/** A whole answer of status `coming`. @param ids of the wants, at least one */
export function encodeComing(ids: readonly [number, ...number[]]): Uint8Array {
  const [first, ...more] = ids
  const bytes = Buffer.alloc(answerHeaderBytes + more.length * 4)
  bytes.set(encodeAnswerHeader(first, 'coming'))
  for (const [i, id] of more.entries()) bytes.writeUInt32LE(id, answerHeaderBytes + i * 4)
  return bytes
}

function parseMore(bytes: Uint8Array): number[] {
  if (bytes.length % 4 !== 0 || bytes.length >= 4 * maxOutstandingWants)
    throw new P2pfsError('invalid', 'chunk answer: too many wants, or none whole')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(i * 4, true))
}

/** The holders that follow the header of status `busy`, of at most {@link maxHoldersBytes}. */
export function encodeHolders(holders: readonly string[]): Uint8Array {
  return encodeCbor({ holders })
}

/** @throws invalid */
export function parseHolders(bytes: Uint8Array): string[] {
  const what = 'holders'
  const list = new Fields(parseCbor(bytes, what), what).list('holders')
  const fields = new Fields(list, what)
  const holders = list.map((_, i) => fields.text(i))
  if (holders.length > maxNamedHolders || holders.some((id) => id === '' || id.length > maxIdLength))
    throw new P2pfsError('invalid', `${what}: too many holders, or one whose id is no id`)
  return holders
}
