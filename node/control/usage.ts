import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'

/**
 * Runs what only looks at the request itself: an `invalid` of it is the mistake of whoever wrote the request, not a fault
 * of an image. The command line ends with the status of wrong usage then.
 */
export function asUsage<T>(check: () => T): T {
  try {
    return check()
  } catch (error) {
    throw isP2pfsError(error, 'invalid')
      ? new P2pfsError('invalid', error.message, { ...error.details, isUsage: true })
      : error
  }
}

/** Whether the error says that the request itself is wrong. */
export function isUsage(error: unknown): boolean {
  return isP2pfsError(error, 'invalid') && error.details['isUsage'] === true
}
