/**
 * Kinds of failure, by what a caller does about them. Callers match `code`, never the message.
 *
 * - `invalid`: bytes or input that can never be right: discard them, and blame the sender
 * - `missing`: the source does not have it: try the next source
 * - `timeout`: no answer in time: hedge or try another source
 * - `busy`: the source asks to be left alone for now: back off
 * - `unavailable`: a source cannot be reached or failed: try another, or later
 * - `denied`: credentials are missing or refused: a person must act
 * - `unsupported`: a valid request that this version, kernel or host cannot fulfil
 * - `conflict`: the request contradicts the present state (directory in use, second daemon)
 * - `closed`: the part has been stopped
 */
export const errorCodes = [
  'invalid',
  'missing',
  'timeout',
  'busy',
  'unavailable',
  'denied',
  'unsupported',
  'conflict',
  'closed',
] as const

export type ErrorCode = (typeof errorCodes)[number]

export interface ErrorDetails {
  cause?: unknown
  [detail: string]: unknown
}

/** The only error type of the project. `details` are flat, for logs and for `--json`. */
export class P2pfsError extends Error {
  readonly code: ErrorCode
  readonly details: Record<string, unknown>

  constructor(code: ErrorCode, message: string, { cause, ...details }: ErrorDetails = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'P2pfsError'
    this.code = code
    this.details = details
  }
}

/** Whether `error` is a {@link P2pfsError}, with one of `codes` where any are given. */
export function isP2pfsError(error: unknown, ...codes: ErrorCode[]): error is P2pfsError {
  return error instanceof P2pfsError && (codes.length === 0 || codes.includes(error.code))
}
