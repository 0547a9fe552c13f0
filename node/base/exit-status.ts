import { isP2pfsError } from '../../protocol/errors.ts'
import { isSystemError, mayPass } from './system-error.ts'

/** How `p2pfs daemon` ends if it cannot start, after sysexits.h. Status 2, a wrong command line, is the command's. */
export const exitStatus = {
  /** EX_SOFTWARE: the daemon crashes again and again. */
  crashes: 70,
  /** EX_TEMPFAIL: another try may help, as when a port is in use. */
  tryAgain: 75,
  /** EX_CONFIG: another try helps only after somebody has changed something. */
  needsChange: 78,
} as const

/** The status for an error that kept the daemon from starting. */
export function exitStatusOf(error: unknown): number {
  if (mayPass(error)) return exitStatus.tryAgain
  if (isP2pfsError(error, 'unavailable', 'timeout', 'busy', 'closed')) return exitStatus.tryAgain
  return isP2pfsError(error) || isSystemError(error) ? exitStatus.needsChange : exitStatus.crashes
}
