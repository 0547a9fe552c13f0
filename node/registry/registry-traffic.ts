import { isP2pfsError } from '../../protocol/errors.ts'
import { ExpiringMap } from '../base/expiring-map.ts'

/** How long a server that has not answered counts as silent, if it is not asked again (ms). */
const silentMs = 300_000
/** A server is silent if somebody has waited so long for it, and then given up (ms): callers wait two seconds and more. */
const patienceMs = 1_500
/** Servers that are remembered as silent. */
const maxSilent = 256

/**
 * Counts the requests to registries: the answers by their status, and the requests that failed without one. Statuses
 * that HTTP does not know are counted as `other`, so that a server cannot make up more.
 */
export class RegistryTraffic {
  readonly #outcomes = new Map<string, number>()
  readonly #silent: ExpiringMap<string>

  constructor({ now }: { now?: () => number } = {}) {
    this.#silent = new ExpiringMap({ maxEntries: maxSilent, ...(now && { now }) })
  }

  /** How many requests ended so: an HTTP status, or the code of an error where no answer came. */
  get outcomes(): ReadonlyMap<string, number> {
    return this.#outcomes
  }

  /** Servers that did not answer when they were last asked, a short while ago. */
  get silent(): number {
    return this.#silent.size
  }

  answered(host: string, status: number): void {
    this.#count(knownStatuses.has(status) ? String(status) : 'other')
    this.#silent.delete(host)
  }

  /**
   * A request failed without an answer.
   * @param isGivenUp whoever had it sent has given it up: that is no failure, but it may tell of silence
   */
  failed(host: string, error: unknown, { isGivenUp, waitedMs }: { isGivenUp: boolean; waitedMs: number }): void {
    if (!isGivenUp) this.#count(isP2pfsError(error) ? error.code : 'other')
    const isSilent = isGivenUp ? waitedMs >= patienceMs : isP2pfsError(error, 'timeout', 'unavailable')
    if (isSilent) this.#silent.set(host, true, silentMs)
  }

  #count(outcome: string): void {
    this.#outcomes.set(outcome, (this.#outcomes.get(outcome) ?? 0) + 1)
  }
}

/** Those that registries, their storage and proxies before them answer with. */
const knownStatuses: ReadonlySet<number> = new Set([
  200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413,
  415, 416, 421, 422, 425, 426, 429, 431, 451, 500, 501, 502, 503, 504, 507, 511,
])
