import { isP2pfsError } from '../protocol/errors.ts'
import { isUsage } from '../node/control/usage.ts'
import { printJson, printNote, printStack } from './output.ts'

/** Exit status for a wrong command line. */
export const usageExit = 2

/** The command line does not follow `--help`. */
export class UsageError extends Error {}

/** Prints the error: one line on stderr, or with `json` one object on stdout. @returns the exit status */
export function reportFailure(error: unknown, json: boolean): number {
  const message = error instanceof Error ? error.message : String(error)
  const code = isP2pfsError(error) ? error.code : error instanceof UsageError ? 'usage' : 'failed'
  if (json) printJson({ error: { code, message } })
  else printNote(message)
  if (code === 'failed' && error instanceof Error) printStack(error.stack ?? '')
  return error instanceof UsageError || isUsage(error) ? usageExit : 1
}
