import type { Stream } from '@libp2p/interface'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeAnswerHeader,
  encodeHolders,
  maxWantMessageBytes,
  parseWants,
  type Want,
} from '../../../protocol/messages/chunk.ts'
import { haveParts } from '../../../protocol/messages/region.ts'
import { silentLog } from '../../../node/base/log.ts'
import { Fetcher } from '../../../node/fetch/fetcher.ts'
import { PeerSource } from '../../../node/fetch/peer-source.ts'
import type { ChunkRequest, FetchPriority, Source } from '../../../node/model/chunk-request.ts'
import { Availability } from '../../../node/peers/availability.ts'
import { ChunkClient } from '../../../node/peers/chunk/client.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import type { Peer } from '../../../node/peers/peer.ts'
import { standings } from '../../../node/peers/peer-standing.ts'
import type { SpanStewards } from '../../../node/peers/spans/span-stewards.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { inSmallRegion } from '../../support/small-region.ts'
import { FakeBulk } from './fake-bulk.ts'
import { FakeRegion } from '../peers/fake-region.ts'

export const chunkBytes = 4096
const table = digestOf(Buffer.from('table'))
const count = 4096

/** A chunk of the one segment that there is. */
export function chunk(index: number): { bytes: Uint8Array; request: ChunkRequest } {
  const bytes = Buffer.alloc(chunkBytes)
  bytes.writeUInt32LE(index)
  return { bytes, request: { digest: digestOf(bytes), lengthBytes: chunkBytes, table, index } }
}

const chunks = new Map<Digest, Uint8Array>()
function bytesOf(digest: Digest): Uint8Array {
  for (let index = chunks.size; !chunks.has(digest) && index < count; index++) {
    const { bytes, request } = chunk(index)
    chunks.set(request.digest, bytes)
  }
  return chunks.get(digest)!
}

/** The far end of a stream, as a scripted peer answers it. */
export interface Far {
  clock: FakeClock
  /** Resolves when so much time has passed. */
  sleep: (ms: number) => Promise<void>
  give: (want: Want, bytes?: Uint8Array) => Promise<void>
  lack: (want: Want) => Promise<void>
  /** Says that it has too much to serve, and names others. */
  sendElsewhere: (want: Want, holders: readonly string[]) => Promise<void>
  /** Says that the chunk is being read from the registry. */
  tellComing: (want: Want) => Promise<void>
  /** Sends bytes as they are. */
  raw: (bytes: Uint8Array) => void
}

/** A peer's behaviour with one want, in the order in which they come; the next want does not wait for it. */
export type Script = (want: Want, far: Far, place: number) => void | Promise<void>

export const silent: Script = () => undefined
export const good =
  (latencyMs = 10): Script =>
  async (want, { sleep, give }) => {
    await sleep(latencyMs)
    await give(want)
  }

/** A link that carries one chunk after the other. @param msPerChunk time on the wire of one chunk */
export function slowLink(msPerChunk: number): Script {
  let freeAtMs = 0
  return async (want, { clock, sleep, give }) => {
    freeAtMs = Math.max(clock.now(), freeAtMs) + msPerChunk
    await sleep(freeAtMs - clock.now())
    await give(want)
  }
}

export interface ScriptedRegion {
  clock: FakeClock
  region: FakeRegion
  bulk: FakeBulk
  fetcher: Fetcher
  client: ChunkClient
  peers: Record<string, Peer>
  /** Wants that each peer has got, by the peer's id. */
  wants: Record<string, number>
  /** Indexes of chunks for which a steward was asked. */
  questions: number[]
  /** Indexes of chunks that the registry was asked for. */
  atRegistry: number[]
  /** Reads a chunk, and lets so much time pass until it has come. @returns the source, and how long it took (ms) */
  read: (
    index: number,
    options?: { priority?: FetchPriority; withinMs?: number },
  ) => Promise<{ source: Source; ms: number }>
}

/**
 * A host whose peers all say that they hold everything, and do as their scripts say.
 * @param options `reader`: the peer to which stewards send this host, until it is asked
 *   again; then to the `others`, one after the other, and to the registry. With it the peers say that they hold nothing.
 *   `quiet`: peers that have not said that they hold anything
 */
export function scriptedRegion(
  scripts: Record<string, Script>,
  registry: (index: number) => Promise<'has it' | 'is away'> | 'has it' | 'is away',
  {
    registryMs = 100,
    reader,
    others = [],
    quiet = [],
  }: { registryMs?: number; reader?: string; others?: readonly string[]; quiet?: readonly string[] } = {},
): ScriptedRegion {
  const clock = new FakeClock()
  const region = new FakeRegion({ clock })
  const sleep = async (ms: number): Promise<void> => await new Promise((resolve) => void clock.after(ms, resolve))
  const peers: Record<string, Peer> = {}
  const wants: Record<string, number> = {}
  const held = new Bitmap(count)
  for (let i = 0; i < count && reader === undefined; i++) held.set(i)
  for (const id of Object.keys(scripts)) {
    peers[id] = region.join(id)
    if (!quiet.includes(id)) for (const part of haveParts(table, held)) peers[id].holdings.take(part, count)
    wants[id] = 0
  }
  region.serve = async (stream: Stream, id: string) => {
    const far: Far = {
      clock,
      sleep,
      give: async (want, bytes = bytesOf(want.digest)) =>
        await writeFrame(stream, [encodeAnswerHeader(want.id, 'chunk'), bytes]),
      lack: async (want) => await writeFrame(stream, [encodeAnswerHeader(want.id, 'missing')]),
      sendElsewhere: async (want, holders) =>
        await writeFrame(stream, [encodeAnswerHeader(want.id, 'busy'), encodeHolders(holders)]),
      tellComing: async (want) => await writeFrame(stream, [encodeAnswerHeader(want.id, 'coming')]),
      raw: (bytes) => void stream.send(bytes),
    }
    for await (const message of readFrames(stream, maxWantMessageBytes))
      for (const want of parseWants(message)) void scripts[id]!(want, far, wants[id]!++)
  }
  const { membership, host } = region
  const availability = new Availability({ membership, ...inSmallRegion })
  const client = new ChunkClient({ host, membership, signal: new AbortController().signal, clock })
  const bulk = new FakeBulk()
  const questions: number[] = []
  const named = [reader, ...others]
  const spans: Pick<SpanStewards, 'placeOf' | 'ask'> = {
    placeOf: () => {
      const member = named[questions.length]
      return member === undefined || client.standing(member).current > standings.unproven
        ? { depth: 0, member: undefined }
        : { depth: 1, member }
    },
    ask: async (_, index) => await Promise.resolve(void questions.push(index)),
  }
  const stored = new Map<Digest, Uint8Array>()
  const atRegistry: number[] = []
  const fetcher = new Fetcher({
    inventory: {
      has: (digest) => stored.has(digest),
      get: async (digest) => stored.get(digest),
      put: async (digest, bytes) => {
        stored.set(digest, bytes)
        return true
      },
    },
    peers: new PeerSource({ availability, chunks: client, bulk, spans, log: silentLog, clock }),
    registry: {
      fetch: async ({ index }) => {
        atRegistry.push(index)
        await sleep(registryMs)
        if ((await registry(index)) === 'is away') throw new P2pfsError('unavailable', 'the registry is away')
        return chunk(index).bytes
      },
    },
    log: silentLog,
    clock,
  })
  const read: ScriptedRegion['read'] = async (index, { priority = 'demand', withinMs = 60_000 } = {}) => {
    const startMs = clock.now()
    let ended: { source: Source; ms: number } | undefined
    let failure: unknown
    const { signal } = new AbortController()
    fetcher.fetch(chunk(index).request, { signal, priority }).then(
      ({ source }) => (ended = { source, ms: clock.now() - startMs }),
      (error: unknown) => (failure = error),
    )
    for (let ms = 0; ended === undefined && failure === undefined && ms < withinMs; ms += 5) await clock.pass(5)
    if (ended === undefined) throw failure ?? new Error(`chunk ${index} has not come within ${withinMs} ms`)
    return ended
  }
  return { clock, region, bulk, fetcher, client, peers, wants, questions, atRegistry, read }
}
