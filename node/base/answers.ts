import { isP2pfsError } from '../../protocol/errors.ts'

/**
 * Whether an error is an answer: `missing`, `unsupported` and `invalid` say how things are. All other errors
 * (unavailable, timeout, busy, denied, closed, an abort, a lost connection) say "not now": the question stays open.
 */
export function isAnswer(error: unknown): boolean {
  return isP2pfsError(error, 'missing', 'unsupported', 'invalid')
}
