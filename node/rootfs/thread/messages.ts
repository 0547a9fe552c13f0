import { ChunkTable } from '../../../protocol/chunk-table.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { errorCodes, isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import type { ChunkFileWriting, WrittenChunk } from '../../base/chunk-file-writer.ts'
import type { ChunkFate, NamedChunk } from '../../model/chunk-sink.ts'
import { PackedEntries, type EntryBlock } from '../../../protocol/packed-entries.ts'

/** A chunk table as threads pass it to each other. */
export interface SentTable {
  lengths: Uint8Array
  digests: Uint8Array
}

/** A layer index as threads pass it to each other: the memory of its entries is shared. */
export interface SentLayerIndex {
  diffId: Digest
  tarBytes: number
  chunks: SentTable
  blocks: readonly EntryBlock[]
}

export interface SentError {
  code: string | undefined
  message: string
  details: Record<string, unknown>
}

/** With which the thread writes chunk files; undefined where it writes none. */
export interface ThreadFiles {
  writing: ChunkFileWriting | undefined
}

/** The settings that every thread that makes chunks starts with. */
export interface ChunkThreadSetup {
  /** Absent where it sends all bytes. */
  files?: ThreadFiles
}

export interface ChunksMade {
  /** Chunks whose fates are asked for. */
  asked: ({ id: number } & NamedChunk)[]
  /** Chunks whose files have been written. */
  written: WrittenChunk[]
}

/** From a thread that makes chunks. */
export type FromChunkThread<Result> =
  | { chunk: { id: number; digest: Digest; bytes: Uint8Array<ArrayBuffer> } }
  | { made: ChunksMade }
  | { unwritable: { message: string; errno: string | undefined } }
  | { result: Result }
  | { error: SentError }

/** To a thread that makes chunks: the sink has kept one that was sent; or what becomes of those that were asked for. */
export type ToChunkThread = { stored: number } | { fates: { id: number; fate: ChunkFate }[] }

export const sendTable = (table: ChunkTable): SentTable => ({ lengths: table.encodeLengths(), digests: table.digests })
export const receiveTable = ({ lengths, digests }: SentTable): ChunkTable => ChunkTable.parse(lengths, digests)

export function sendLayerIndex({ diffId, tarBytes, chunks, entries }: LayerIndex): SentLayerIndex {
  return { diffId, tarBytes, chunks: sendTable(chunks), blocks: PackedEntries.from(entries).blocks }
}

export function receiveLayerIndex({ diffId, tarBytes, chunks, blocks }: SentLayerIndex): LayerIndex {
  return { diffId, tarBytes, chunks: receiveTable(chunks), entries: new PackedEntries(blocks) }
}

/** The details of an error that can be copied; its cause cannot. */
export function sendError(error: unknown): SentError {
  if (!isP2pfsError(error)) return { code: undefined, message: (error as Error).message, details: {} }
  const { code, message, details } = error
  return { code, message, details }
}

export function receiveError({ code, message, details }: SentError): Error {
  const knownCode = errorCodes.find((candidate) => candidate === code)
  return knownCode === undefined ? new Error(message) : new P2pfsError(knownCode, message, details)
}
