import type { ErrorCode } from '../../../protocol/errors.ts'
import type { ByteProgress } from '../../model/progress.ts'

/** A request that needs no fields. */
export type EmptyRequest = Record<string, never>

export type EmptyResult = Record<string, never>

/** An error: problem details of RFC 9457. */
export interface Problem {
  /** The HTTP status. */
  status: number
  /** The HTTP status in words. */
  title: string
  /** The fault and what to do about it, for a person. */
  detail: string
  /** The kind of failure, for a program. */
  code: ErrorCode
  /** Present if the request itself is wrong, whatever the state of this host. */
  isUsage?: true
}

export interface Progress {
  progress: { step: 'import' | 'fetch' | 'export' | 'push' | 'publish' | 'verify' | 'place' } & ByteProgress
}

export type Outcome<T> = { result: T } | { error: Problem }
