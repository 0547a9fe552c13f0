import type { Digest } from '../../../protocol/digest.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import type { ChunkFileWriting } from '../../base/chunk-file-writer.ts'
import type { BulkGrant, BulkMode } from '../../../protocol/messages/bulk.ts'

/** An error as it crosses to another thread. */
export interface SentFailure {
  code: ErrorCode
  message: string
}

/** The addresses on which bulk connections are accepted. */
export interface BulkListen {
  hosts: readonly string[]
  /** The same one of all hosts; 0 is any. */
  port: number
  /** Whether any other port will do where that one is in use. */
  orAny: boolean
}

/** The settings that the sending thread starts with. */
export interface SenderSetup {
  /** The directory of the chunk files. */
  directory: string
  mode: BulkMode
  listen: BulkListen
  /** The memory of the limit on what is given to peers. */
  upload: SharedArrayBuffer
}

/** To the sending thread. */
export type ToSender =
  | { grant: Omit<BulkGrant, 'port'>; peer: string; lifetimeMs: number }
  /** The peer is gone: its grants and its connection end. */
  | { revoke: string }

/** From the sending thread. */
export type FromSender =
  | { listening: { port: number } }
  /** It does not listen: nothing is served. */
  | { failed: { message: string } }
  /** Bytes and chunks that were sent since the last such message, and connections now. */
  | { sent: { peer: string; chunks: number; bytes: number }[]; connections: number }
  /** The chunk's file is not what its name says. */
  | { damaged: Digest }
  /** The peer broke the protocol. */
  | { broke: string; failure: SentFailure }

/** The settings that the receiving thread starts with. */
export interface ReceiverSetup {
  writing: ChunkFileWriting
  mode: BulkMode
}

/** One chunk that is wanted of a connection. */
export interface BulkWant {
  id: number
  digest: Digest
  lengthBytes: number
  /** Whether it comes after all others of the holder. */
  isLast?: boolean
  /** Whether it is served in its turn, whoever else holds the chunk. */
  waits?: boolean
}

/** To the receiving thread. Connections are numbered by the main thread. */
export type ToReceiver =
  | { open: number; host: string; grant: BulkGrant }
  | { want: number; wants: readonly BulkWant[] }
  | { cancel: number; id: number }
  | { raise: number; id: number }
  | { close: number }

/**
 * `kept`: the chunk is right, and its file is there. `missing`: the holder does not have it. `cancelled`: as asked.
 * `unkept`: it is right, but the disk did not take it. `elsewhere`: the holder has too much to serve, and names others.
 */
export type WantOutcome = 'kept' | 'missing' | 'cancelled' | 'unkept' | 'elsewhere'

/** A want that has its answer; for a chunk that is kept also the inode change time (ms) of its file. */
export type MetWant =
  | { id: number; outcome: 'kept'; changedAtMs: number }
  | { id: number; outcome: 'elsewhere'; holders: readonly string[] }
  | { id: number; outcome: Exclude<WantOutcome, 'kept' | 'elsewhere'> }

/** From the receiving thread. */
export type FromReceiver =
  | { opened: number }
  /** Outcomes of a short while, in the order in which they came. */
  | { met: number; wants: MetWant[] }
  /** A chunk could not be written. */
  | { unwritable: { message: string; errno: string | undefined } }
  /** The connection is over, with everything that was wanted of it. */
  | { closed: number; failure: SentFailure }
