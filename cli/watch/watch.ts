import type { SeedJobReport, Status } from '../../node/control/api.ts'
import { ExpiringMap } from '../../node/base/expiring-map.ts'
import { pause, type Clock } from '../../node/base/clock.ts'
import { isP2pfsError } from '../../protocol/errors.ts'
import { ProgressMeter } from '../progress/meter.ts'
import { frameOf } from './frame.ts'
import { ratesOf, type Rates } from './rates.ts'

/** Between two looks (ms). */
const intervalMs = 1_000
/** The rate of a seed or import that is not seen for so long is forgotten (ms); so many are known at most. */
const meterMs = 60_000
const maxMeters = 256

export interface WatchParts {
  status: (options: { signal: AbortSignal }) => Promise<Status>
  seeds: (options: { signal: AbortSignal }) => Promise<readonly SeedJobReport[]>
  /** Says which reads wait. */
  describeWaiting: (status: Status) => string[]
  /** Shows one look. @param lines for a person */
  show: (lines: string[], look: { status: Status; rates: Rates }) => void
  /** Says that the daemon does not answer now. */
  showLost: (message: string) => void
  clock: Clock
}

/**
 * Looks at the daemon each second until the signal fires. A daemon that goes away is waited for.
 * @throws what the first look fails with
 */
export async function watch(
  { status, seeds, describeWaiting, show, showLost, clock }: WatchParts,
  { signal }: { signal: AbortSignal },
): Promise<void> {
  const meters = new ExpiringMap<string, ProgressMeter>({ maxEntries: maxMeters, now: clock.now })
  const meterOf = (name: string): ProgressMeter => {
    const meter = meters.get(name) ?? new ProgressMeter({ now: clock.now })
    meters.set(name, meter, meterMs)
    return meter
  }
  let before: { status: Status; atMs: number } | undefined
  while (!signal.aborted) {
    const begunAtMs = clock.now()
    try {
      const [now, jobs] = await Promise.all([status({ signal }), seeds({ signal })])
      const atMs = clock.now()
      // The first look has rates of nothing, and shows what is there.
      const seconds = before === undefined ? 1 : Math.max(0.001, (atMs - before.atMs) / 1000)
      const rates = ratesOf(before?.status ?? now, now, seconds)
      before = { status: now, atMs }
      show(frameOf({ status: now, rates, seeds: jobs, meterOf, waiting: describeWaiting(now) }), { status: now, rates })
    } catch (error) {
      if (signal.aborted) return
      if (before === undefined || !isP2pfsError(error)) throw error
      showLost(error.message)
    }
    await pause(clock, Math.max(0, intervalMs - (clock.now() - begunAtMs)), { signal })
  }
}
