import type { Progress } from '../../node/control/api.ts'
import { formatSize } from '../size.ts'

/** The rate is that of so long (ms): long enough to be steady, short enough to follow a change. */
const windowMs = 5_000
/** At most so many moments are kept; the daemon tells of ten a second. */
const maxSamples = 64

/** How far a request is, with what follows from how it got there. */
export interface MeteredProgress {
  step: Progress['progress']['step']
  doneBytes: number
  totalBytes: number
  from?: Progress['progress']['from']
  /** The rate of the last seconds; undefined at the beginning. */
  bytesPerSecond?: number
  /** The time left at that rate. */
  secondsLeft?: number
}

/** Measures the rate of what the daemon tells, step by step. */
export class ProgressMeter {
  readonly #now: () => number
  #step: string | undefined
  #samples: { atMs: number; doneBytes: number }[] = []

  constructor({ now = () => performance.now() }: { now?: () => number } = {}) {
    this.#now = now
  }

  add({ step, doneBytes, totalBytes, from }: Progress['progress']): MeteredProgress {
    const atMs = this.#now()
    if (this.#step !== step) this.#samples = []
    this.#step = step
    this.#samples.push({ atMs, doneBytes })
    while (this.#samples.length > 2 && (this.#samples.length > maxSamples || atMs - this.#samples[0]!.atMs > windowMs))
      this.#samples.shift()
    const metered = { step, doneBytes, totalBytes, ...(from !== undefined && { from }) }
    const first = this.#samples[0]!
    const seconds = (atMs - first.atMs) / 1000
    if (seconds <= 0) return metered
    const bytesPerSecond = Math.max(0, (doneBytes - first.doneBytes) / seconds)
    const leftBytes = Math.max(0, totalBytes - doneBytes)
    return {
      ...metered,
      bytesPerSecond: Math.round(bytesPerSecond),
      ...(bytesPerSecond > 0 && totalBytes > 0 && { secondsLeft: Math.ceil(leftBytes / bytesPerSecond) }),
    }
  }
}

const sources = { local: 'here', peer: 'peers', neighbour: 'neighbours', registry: 'registry' } as const

/** `fetch 45 %, 12.3 MiB of 27.0 MiB, 10.2 MiB/s, 2 s left (peers 70 %, registry 30 %)`. */
export function describeProgress(progress: MeteredProgress): string {
  const { step, doneBytes, totalBytes, from = {}, bytesPerSecond, secondsLeft } = progress
  const share = (part: number, all: number): string => `${Math.min(100, Math.floor((100 * part) / all))} %`
  const sum = Object.values(from).reduce((total, bytes) => total + bytes, 0)
  const parts = Object.entries(sources)
    .filter(([source]) => (from[source as keyof typeof sources] ?? 0) > 0)
    .map(([source, name]) => `${name} ${share(from[source as keyof typeof sources]!, sum)}`)
  return [
    totalBytes > 0 ? `${step} ${share(doneBytes, totalBytes)}` : step,
    totalBytes > 0 ? `${formatSize(doneBytes)} of ${formatSize(totalBytes)}` : formatSize(doneBytes),
    ...(bytesPerSecond === undefined ? [] : [`${formatSize(bytesPerSecond)}/s`]),
    ...(secondsLeft === undefined || doneBytes >= totalBytes ? [] : [`${formatSeconds(secondsLeft)} left`]),
  ]
    .join(', ')
    .concat(parts.length === 0 ? '' : ` (${parts.join(', ')})`)
}

function formatSeconds(seconds: number): string {
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
}
