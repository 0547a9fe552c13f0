import { P2pfsError } from '../../protocol/errors.ts'

/** Errors of errno(3) that may pass without anybody's help: something is full, in use, or not there yet. */
const passingErrors = new Set([
  'EADDRINUSE',
  'EADDRNOTAVAIL',
  'EAGAIN',
  'EBUSY',
  'EDQUOT',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
  'ENOSPC',
])

/** Whether the operating system reported the error: it then carries the name of its errno, as `ENOSPC`. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error && 'code' in error
}

/** Whether the error, or an error that caused it, may pass without anybody's help. */
export function mayPass(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  if (isSystemError(error) && passingErrors.has(error.code ?? '')) return true
  // LevelDB and libp2p report the errno in their message only.
  if (/No space left on device|\b(?:EADDRINUSE|EADDRNOTAVAIL)\b/.test(error.message)) return true
  return error instanceof AggregateError ? error.errors.some(mayPass) : mayPass(error.cause)
}

/** An error of the operating system in words for the user: `unavailable` if it may pass, otherwise `invalid`. */
export function systemError(message: string, cause: unknown): P2pfsError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new P2pfsError(mayPass(cause) ? 'unavailable' : 'invalid', `${message}: ${reason}`, { cause })
}
