import { Histogram } from '../../../node/base/histogram.ts'
import type { FiguresParts } from '../../../node/metrics/metrics.ts'

const amount = (bytes: number): { bytes: number; chunks: number } => ({ bytes, chunks: 1 })
const histogram = (...values: number[]): Histogram => {
  const counted = new Histogram([0.1, 1])
  for (const value of values) counted.observe(value)
  return counted
}
const limit = (name: string): object => ({ name, waiting: 1, urgentWaits: 2, urgentWaitedMs: 1500 })

/** A host that has done something of everything; each figure has a value of its own. */
export const busyHost = {
  driver: {
    counters: () => ({
      served: { local: amount(1), peer: amount(2), neighbour: amount(3), registry: amount(4) },
      errors: 5,
    }),
  },
  mounts: {
    waiting: {
      count: 6,
      slow: 7,
      longestMs: 8_000,
      waits: {
        local: histogram(0.05),
        peer: histogram(0.05, 0.5, 5),
        neighbour: histogram(),
        registry: histogram(0.5),
        none: histogram(60),
      },
    },
    list: () => [
      { id: 'a', as: 'tree' },
      { id: 'b', as: 'drive' },
      { id: 'c', as: 'drive' },
    ],
    reads: async () =>
      await Promise.resolve(
        new Map([
          ['a', 'native'],
          ['b', 'fuse'],
        ]),
      ),
  },
  wholeReads: { counts: { 'no-map': 9 }, running: 1 },
  fetcher: { fromPeers: amount(10), fromNeighbours: amount(11) },
  reader: { chunks: amount(1) },
  importer: { chunks: amount(2) },
  ranges: { chunks: amount(3), read: { requests: 12, bytes: 13 } },
  streams: { chunks: amount(4) },
  published: { chunks: amount(5) },
  network: {
    totals: () => ({ bytesSent: 16 }),
    guests: () => ({ connected: 17, bytesSent: 18 }),
    strangers: { turnedAway: 19, dropped: 0 },
    membership: { peers: () => [{}, {}], roster: { size: 10 } },
  },
  limits: { report: () => [limit('upload'), limit('registry')] },
  registries: {
    host: {
      outcomes: new Map([
        ['200', 20],
        ['timeout', 21],
      ]),
      silent: 22,
    },
    members: { outcomes: new Map([['404', 23]]), silent: 0 },
  },
  timedMounts: { seconds: { local: histogram(0.01), built: histogram(20) }, failures: { missing: 24 } },
  imports: { list: () => [{}], ended: { imported: 25, failed: 26, aborted: 27 } },
  lies: { isContradicted: ({ id }: { id: string }) => id === 'c' },
  verifier: { pending: 28 },
  pins: { list: () => [{}, {}, {}] },
  version: '1.2.3',
  replacements: { ordered: 29, unexpected: 30 },
  inventory: { count: 31 },
  storeRoom: { usedBytes: 5, limitBytes: 6, evicted: { bytes: 7, chunks: 8 } },
  room: async () => await Promise.resolve({ freeBytes: 32, sizeBytes: 33 }),
  loopDelay: { figures: () => ({ p50: 1, p99: 2, max: 34_000 }) },
} as unknown as FiguresParts
