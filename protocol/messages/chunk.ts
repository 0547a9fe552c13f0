import { maxChunkBytes } from '../chunk-table.ts'
import { digestBytes, digestFromBytes, digestToBytes, type Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'

/** A long-lived stream: wants go one way, chunks the other way, in any order. */
export const chunkProtocol = '/p2pfs/chunk/3'

export const maxWantsPerMessage = 256
/** Wants of one stream that are read and have no answer yet. A server reads no more until it has answered some. */
export const maxOutstandingWants = 1024

const wantBytes = 4 + 1 + digestBytes
export const maxWantMessageBytes = maxWantsPerMessage * wantBytes
const answerHeaderBytes = 5
export const maxAnswerBytes = answerHeaderBytes + maxChunkBytes

/**
 * What a want asks for: a chunk that the server holds; one that it else reads from the registry, where nobody waits for
 * it (`relay`) or somebody does (`relay-urgent`). `raise`: somebody has come to wait for the one that was asked for by
 * this id; it has no answer of its own.
 */
export const wantKinds = { held: 0, relay: 1, 'relay-urgent': 2, raise: 3 } as const
export type WantKind = keyof typeof wantKinds
/** Bits of the byte that tells the kind; the others are the depth. */
const kindBits = 2

export interface Want {
  /** The client chooses it, and the answer repeats it: 0 to 2^32 - 1. */
  id: number
  kind: WantKind
  /**
   * For `relay` and `relay-urgent`: how deep the asker is in the span's tree of relays, 0 to 63. A server that is not above
   * it relays nothing: so wants cannot run in a circle. 0 for the other kinds.
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
}

/** For each want the id, 32 bit little-endian, the kind and the depth, one byte, and the raw digest; SPEC.md, "Chunk protocol". */
export function encodeWants(wants: readonly Want[]): Uint8Array {
  const bytes = Buffer.alloc(wants.length * wantBytes)
  for (const [i, { id, kind, depth, digest }] of wants.entries()) {
    bytes.writeUInt32LE(id, i * wantBytes)
    bytes[i * wantBytes + 4] = wantKinds[kind] | (depth << kindBits)
    bytes.set(digestToBytes(digest), i * wantBytes + 5)
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
    ...parseKind(bytes[i * wantBytes + 4]!),
    digest: digestFromBytes(bytes, i * wantBytes + 5),
  }))
}

const kinds = Object.keys(wantKinds) as WantKind[]

function parseKind(byte: number): Pick<Want, 'kind' | 'depth'> {
  const kind = kinds[byte & (2 ** kindBits - 1)]!
  const depth = byte >> kindBits
  if (depth > 0 && kind !== 'relay' && kind !== 'relay-urgent')
    throw new P2pfsError('invalid', 'wants: a depth where nothing is relayed')
  return { kind, depth }
}

/** The id, 32 bit little-endian, and the status, one byte. The chunk follows for status `chunk`. */
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
  if (status !== 'chunk' && bytes.length > answerHeaderBytes)
    throw new P2pfsError('invalid', 'chunk answer: bytes without a chunk')
  return { id, status, bytes: bytes.subarray(answerHeaderBytes) }
}
