import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { ChunkRequest } from '../../../node/model/chunk-request.ts'
import { Fetcher } from '../../../node/fetch/fetcher.ts'
import { PeerSource } from '../../../node/fetch/peer-source.ts'
import { PeerStanding } from '../../../node/peers/peer-standing.ts'
import type { ChunkClient } from '../../../node/peers/chunk/client.ts'
import type { FakeClock } from '../../support/fake-clock.ts'
import { FakeBulk } from './fake-bulk.ts'
import { FakeSource } from './fake-source.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { Urgency } from '../../../node/base/urgency.ts'

export const chunk = (n: number): { bytes: Uint8Array; request: ChunkRequest } => {
  const bytes = Buffer.alloc(4096, n)
  bytes.writeUInt32LE(n)
  return {
    bytes,
    request: { digest: digestOf(bytes), lengthBytes: 4096, table: digestOf(Buffer.from('table')), index: n },
  }
}

export interface World {
  fetcher: Fetcher
  stored: Map<Digest, Uint8Array>
  /** Chunks that were read from the store. */
  reads: Digest[]
  asked: string[]
  registry: FakeSource
  bulk: FakeBulk
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
}

export function world(
  peers: Record<string, (digest: Digest, signal: AbortSignal) => Promise<Uint8Array>>,
  registry?: (request: ChunkRequest, urgency: Urgency, isHeld: (() => boolean) | undefined) => Promise<Uint8Array>,
  { clock }: { clock?: FakeClock } = {},
): World {
  const stored = new Map<Digest, Uint8Array>()
  const reads: Digest[] = []
  const asked: string[] = []
  const standings: Record<string, PeerStanding> = {}
  const fetchChunk: ChunkClient['fetchChunk'] = async (peer, digest, _length, { signal }) => {
    asked.push(peer)
    return await peers[peer]!(digest, signal)
  }
  const result = {
    stored,
    reads,
    asked,
    bulk: new FakeBulk(),
    registry: new FakeSource(async (request, { urgency, isHeld }) => {
      if (registry === undefined) throw new P2pfsError('unavailable', 'registry is gone')
      return await registry(request, urgency, isHeld)
    }),
    put: async (digest, bytes) => void stored.set(digest, bytes),
  } as World
  result.fetcher = new Fetcher({
    inventory: {
      has: (digest) => stored.has(digest),
      get: async (digest) => {
        if (stored.has(digest)) reads.push(digest)
        return await Promise.resolve(stored.get(digest))
      },
      put: async (digest, bytes) => {
        await result.put(digest, bytes)
        return true
      },
    },
    peers: new PeerSource({
      availability: {
        holders: () => Object.keys(peers),
        whenAsked: async () => await Promise.resolve(),
        forgetClaim: () => undefined,
      },
      chunks: {
        fetchChunk,
        meet: async () => await Promise.resolve(),
        standing: (id) => (standings[id] ??= new PeerStanding({ now: () => 0 })),
        usualMs: () => 300,
        comingMs: 50,
        isBusyWithEarlier: () => false,
      },
      bulk: result.bulk,
      spans: { placeOf: () => ({ depth: 0, member: undefined }), ask: async () => undefined },
      log: silentLog,
      ...(clock && { clock }),
    }),
    registry: result.registry,
    log: silentLog,
    ...(clock && { clock }),
  })
  return result
}

export const demand = { signal: new AbortController().signal, priority: 'demand' } as const
export const background = { signal: new AbortController().signal, priority: 'background' } as const

/** Lets all that is ready run. */
export const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))
