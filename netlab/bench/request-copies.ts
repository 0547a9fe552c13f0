import type { TimedRequest } from '../registry/logging-proxy-main.ts'
import { formatTable } from './table.ts'

/** The fetches of one path: how many bytes crossed the link, and how many of them are different ones. */
export interface Fetched {
  requests: number
  bytes: number
  distinctBytes: number
}

/** Bytes that were fetched in all. */
export function copiesOf(requests: readonly TimedRequest[]): Fetched {
  const all = { requests: 0, bytes: 0, distinctBytes: 0 }
  for (const ofPath of Map.groupBy(requests, ({ method, path }) => `${method} ${path}`).values()) {
    const counted = fetched(ofPath)
    all.requests += counted.requests
    all.bytes += counted.bytes
    all.distinctBytes += counted.distinctBytes
  }
  return all
}

/** A line for each path that was fetched more than once, the one that cost most first, and one for all. */
export function formatCopies(requests: readonly TimedRequest[]): string {
  const byPath = Map.groupBy(requests, ({ method, path }) => `${method} ${path}`)
  const rows = [...byPath].map(([path, ofPath]) => ({ path, ...fetched(ofPath) }))
  const all = copiesOf(requests)
  const cells = ({ requests: count, bytes, distinctBytes }: Fetched): string[] => [
    String(count),
    (bytes / 1e6).toFixed(2),
    (distinctBytes / 1e6).toFixed(2),
  ]
  const repeated = rows
    .filter(({ requests: count }) => count > 1)
    .toSorted((a, b) => b.bytes - b.distinctBytes - (a.bytes - a.distinctBytes))
  return formatTable([
    ['requests', 'MB', 'distinct MB', 'path'],
    ...repeated.map((row) => [...cells(row), row.path.replace(/sha256:([0-9a-f]{8})[0-9a-f]*/, '$1')]),
    [...cells(all), 'in all'],
  ])
}

function fetched(requests: readonly TimedRequest[]): Fetched {
  const spans = requests
    .filter(({ bytes }) => bytes > 0)
    .map(({ range, bytes }) => {
      const start = Number(/^bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0)
      return { start, end: start + bytes }
    })
    .toSorted((a, b) => a.start - b.start)
  let [distinctBytes, seen] = [0, 0]
  for (const { start, end } of spans) {
    distinctBytes += Math.max(0, end - Math.max(start, seen))
    seen = Math.max(seen, end)
  }
  return {
    requests: requests.length,
    bytes: spans.reduce((sum, { start, end }) => sum + end - start, 0),
    distinctBytes,
  }
}
