import { parseDuration } from '../node/base/duration.ts'
import { UsageError } from './failure.ts'

/** A date with a time and a zone: what is left out would mean something else on another host. */
const isoPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d)$/

/** `90m` -> milliseconds. @throws UsageError */
export function parseMs(text: string, flag: string): number {
  const seconds = parseDuration(text)
  if (seconds === undefined || seconds <= 0)
    throw new UsageError(`${flag} takes a time such as 90s, 30m or 24h, not ${JSON.stringify(text)}`)
  return Math.max(1, Math.round(seconds * 1000))
}

/**
 * `2026-01-31T03:00Z`, or `+2h` from `nowMs` on -> milliseconds since 1970. @throws UsageError, also for a time that is
 * over
 */
export function parseTime(text: string, flag: string, nowMs: number): number {
  if (text.startsWith('+')) return nowMs + parseMs(text.slice(1), flag)
  const timeMs = isoPattern.test(text) ? Date.parse(text) : NaN
  if (Number.isNaN(timeMs))
    throw new UsageError(`${flag} takes 2026-01-31T03:00Z, or +2h for two hours from now, not ${JSON.stringify(text)}`)
  if (timeMs < nowMs) throw new UsageError(`${flag} ${text} is over; leave it out to begin now`)
  return timeMs
}
