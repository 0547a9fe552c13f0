import { STATUS_CODES } from 'node:http'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../protocol/errors.ts'
import type { Problem } from './api.ts'
import { isUsage } from './usage.ts'

/** The time after which a client shall try again, by default (s): a daemon that is replaced is away for a second or two. */
const retryAfterSeconds = 1

/** HTTP's word for each kind of failure: RFC 9110, section 15. */
export const statusOf: Record<ErrorCode, number> = {
  invalid: 400,
  denied: 403,
  missing: 404,
  conflict: 409,
  unsupported: 501,
  busy: 503,
  unavailable: 503,
  closed: 503,
  timeout: 504,
}
/** The registry wants credentials, and got none that it knows. */
export const unauthorized = 401
/** A mistake in the daemon: another try would fail as well. */
export const unexpected = 500

/** A request that is wrong as HTTP, whatever it asks for. */
export class HttpError extends P2pfsError {
  readonly status: number
  readonly headers: Record<string, string>

  constructor(code: ErrorCode, message: string, status = statusOf[code], headers: Record<string, string> = {}) {
    super(code, message)
    this.status = status
    this.headers = headers
  }
}

/** An error as problem details, and the headers that belong to its status. */
export function problemOf(error: unknown): { problem: Problem; headers: Record<string, string> } {
  const detail = error instanceof Error ? error.message : String(error)
  if (!isP2pfsError(error)) return { problem: problem(unexpected, 'unavailable', detail), headers: {} }
  if (error instanceof HttpError) return { problem: problem(error.status, error.code, detail), headers: error.headers }
  const { registry, status: answered, retryAfterMs } = error.details
  if (error.code === 'denied' && answered === unauthorized)
    return {
      problem: problem(unauthorized, error.code, detail),
      headers: { 'www-authenticate': `Registry realm=${JSON.stringify(String(registry))}` },
    }
  const status = statusOf[error.code]
  const seconds = typeof retryAfterMs === 'number' ? Math.ceil(retryAfterMs / 1000) : retryAfterSeconds
  return {
    problem: { ...problem(status, error.code, detail), ...(isUsage(error) && { isUsage: true }) },
    headers: status === 503 ? { 'retry-after': `${seconds}` } : {},
  }
}

function problem(status: number, code: ErrorCode, detail: string): Problem {
  return { status, title: STATUS_CODES[status] ?? 'Error', code, detail }
}
