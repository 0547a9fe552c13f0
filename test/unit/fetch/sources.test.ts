import assert from 'node:assert/strict'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { silentLog } from '../../../node/base/log.ts'
import { orAbort } from '../../../node/base/single-flight.ts'
import { PeerSource } from '../../../node/fetch/peer-source.ts'
import { PeerStanding } from '../../../node/peers/peer-standing.ts'
import { RangeSource } from '../../../node/fetch/range-source.ts'
import { StreamSource } from '../../../node/fetch/stream-source.ts'
import { inStore } from '../../../node/model/chunk-request.ts'
import type { BlobRange } from '../../../node/layers/seekable-segment.ts'
import { WholeReads } from '../../../node/layers/whole-reads.ts'
import type { SegmentStream } from '../../../node/layers/segment-streams.ts'
import { FakeBulk } from './fake-bulk.ts'
import { FakeSource } from './fake-source.ts'
import { testChunkSource, type Backing } from './source-suite.ts'

const { signal } = new AbortController()

testChunkSource({
  name: 'the fake source',
  sharesRequests: true,
  create: (backing) =>
    new FakeSource(async ({ index }) => {
      backing.onRequest()
      await backing.gate()
      return backing.chunks[index]
    }),
})

testChunkSource({
  name: 'the peer source',
  sharesRequests: false,
  create: (backing) => {
    const { table, chunks } = backing
    const fetchChunk = async (
      _peer: string,
      digest: Digest,
      _lengthBytes: number,
      options: { signal: AbortSignal },
    ): Promise<Uint8Array> => {
      backing.onRequest()
      await orAbort(backing.gate(), options.signal)
      // As the client of the chunk protocol does.
      const bytes = chunks[Array.from({ length: table.count }, (_, i) => table.digestAt(i)).indexOf(digest)]
      if (bytes === undefined) throw new P2pfsError('missing', 'peer does not have it')
      if (digestOf(bytes) !== digest) throw new P2pfsError('invalid', 'peer sent other bytes')
      return bytes
    }
    const standing = new PeerStanding({ now: () => 0 })
    const peers = new PeerSource({
      availability: {
        holders: () => ['one', 'two'],
        whenAsked: async () => await Promise.resolve(),
        forgetClaim: () => undefined,
      },
      chunks: {
        fetchChunk,
        meet: async () => await Promise.resolve(),
        standing: () => standing,
        usualMs: () => 300,
        comingMs: 50,
        isBusyWithEarlier: () => false,
      },
      bulk: new FakeBulk(),
      spans: { placeOf: () => ({ depth: 0, member: undefined }), ask: async () => undefined },
      log: silentLog,
    })
    return {
      fetch: async (request, options) => {
        const delivery = await peers.fetch(request, options)
        assert.ok(delivery !== inStore)
        return delivery
      },
    }
  },
})

/** The chunks of a host, in memory. */
function memoryInventory(): ConstructorParameters<typeof StreamSource>[0]['inventory'] {
  const chunks = new Map<Digest, Uint8Array>()
  return {
    get: async (digest) => chunks.get(digest),
    openThreadWriting: () => assert.fail('these streams have no thread'),
    adoptFrom: () => [],
    put: async (digest, bytes) => {
      chunks.set(digest, bytes)
      return true
    },
  }
}

function streamSource(backing: Backing): StreamSource {
  const streamOf = async (): Promise<SegmentStream> => async (sink) => {
    backing.onRequest()
    await backing.gate()
    for (const bytes of backing.chunks) if (bytes !== undefined) await sink.put(digestOf(bytes), bytes)
  }
  return new StreamSource({ streams: { streamOf }, inventory: memoryInventory(), signal, log: silentLog })
}

testChunkSource({
  name: 'the stream source',
  sharesRequests: true,
  create: streamSource,
})

testChunkSource({
  name: 'the range source',
  sharesRequests: true,
  create: (backing) => {
    const { table, chunks } = backing
    const rangeOf = (index: number): BlobRange => {
      const [start, end] = [table.offsets[index]!, table.offsets[index + 1]!]
      return { start, end, tarStart: start, tarEnd: end }
    }
    const segment = {
      table,
      rangeOf,
      join: (first: BlobRange, last: BlobRange) => ({ ...first, end: last.end, tarEnd: last.tarEnd }),
      read: async ({ start, end }: BlobRange, options: { signal: AbortSignal }) => {
        backing.onRequest()
        await orAbort(backing.gate(), options.signal)
        const indexes = Array.from({ length: table.count }, (_, i) => i).filter(
          (i) => table.offsets[i]! >= start && table.offsets[i + 1]! <= end,
        )
        return indexes.map((index) => {
          const bytes = chunks[index]
          if (bytes === undefined) throw new P2pfsError('missing', 'no such blob')
          return { index, bytes }
        })
      },
    }
    return new RangeSource({
      layers: { seekable: async () => segment },
      // The registry has the same bytes whichever way it is read.
      stream: streamSource(backing),
      wholeReads: new WholeReads(),
      inventory: memoryInventory(),
      signal,
      log: silentLog,
    })
  },
})
