import { readFile } from 'node:fs/promises'
import type { TimedRequest } from '../registry/logging-proxy-main.ts'

/** The traffic on the registry's link during one start. Times are milliseconds from the beginning of the start. */
export interface ColdTimeline {
  mountedAtMs: number
  readyAtMs: number
  requests: TimedRequest[]
  /** Bytes sent so far, every {@link sampleMs}. */
  samples: { atMs: number; sentBytes: number }[]
}

export const sampleMs = 50

/** Samples a counter until it is stopped. */
export class LinkSampler {
  readonly samples: { atMs: number; sentBytes: number }[] = []
  readonly #timer: NodeJS.Timeout

  constructor(startedAt: number, sentBytes: () => number) {
    this.#timer = setInterval(
      () => void this.samples.push({ atMs: performance.now() - startedAt, sentBytes: sentBytes() }),
      sampleMs,
    )
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}

/** The requests that the proxy has logged since `startedAt` (of `performance.now()`), with times counted from there. */
export async function timedRequests(logPath: string, startedAt: number): Promise<TimedRequest[]> {
  const origin = performance.timeOrigin + startedAt
  const lines = (await readFile(logPath, 'utf8')).split('\n').filter(Boolean)
  const all = lines.map((line) => JSON.parse(line) as TimedRequest)
  return all
    .map((request) => ({
      ...request,
      startedAt: request.startedAt - origin,
      answeredAt: request.answeredAt - origin,
      endedAt: request.endedAt - origin,
    }))
    .filter(({ startedAt }) => startedAt >= 0)
    .sort((a, b) => a.startedAt - b.startedAt)
}

/** A line for each request, and for each span in which the link had little to do. */
export function formatTimeline(
  { mountedAtMs, readyAtMs, requests, samples }: ColdTimeline,
  rateMegabits: number | undefined,
): string {
  const lines: [atMs: number, text: string][] = requests.map(
    ({ startedAt, answeredAt, endedAt, method, path, range, status, bytes }) => {
      const what = path.replace(/^\/v2\//, '').replace(/sha256:([0-9a-f]{8})[0-9a-f]*/, '$1')
      const times = `${(answeredAt - startedAt).toFixed(0)} + ${(endedAt - answeredAt).toFixed(0)} ms`
      return [startedAt, `${method} ${what} ${range ?? ''} ${status}: ${(bytes / 1000).toFixed(1)} kB, ${times}`]
    },
  )
  lines.push([mountedAtMs, '-- mounted'], [readyAtMs, '-- ready'])
  if (rateMegabits !== undefined) {
    const idle = idleSpans(
      samples.filter(({ atMs }) => atMs <= readyAtMs),
      rateMegabits,
    )
    for (const { fromMs, toMs } of idle) lines.push([fromMs, `   idle for ${(toMs - fromMs).toFixed(0)} ms`])
    const idleMs = idle.reduce((sum, { fromMs, toMs }) => sum + toMs - fromMs, 0)
    lines.push([readyAtMs, `-- the link was idle for ${idleMs.toFixed(0)} of ${readyAtMs.toFixed(0)} ms`])
  }
  return lines
    .toSorted(([a], [b]) => a - b)
    .map(([atMs, text]) => `${atMs.toFixed(0).padStart(7)} ${text}`)
    .join('\n')
}

/** The spans in which the link carried less than a tenth of its rate. */
function idleSpans(samples: ColdTimeline['samples'], rateMegabits: number): { fromMs: number; toMs: number }[] {
  const spans: { fromMs: number; toMs: number }[] = []
  for (const [i, { atMs, sentBytes }] of samples.entries()) {
    const before = samples[i - 1] ?? { atMs: 0, sentBytes: samples[0]?.sentBytes ?? 0 }
    if (((sentBytes - before.sentBytes) * 8) / 1000 / (atMs - before.atMs) >= rateMegabits / 10) continue
    const last = spans.at(-1)
    if (last?.toMs === before.atMs) last.toMs = atMs
    else spans.push({ fromMs: before.atMs, toMs: atMs })
  }
  return spans
}
