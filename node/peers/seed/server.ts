import { setTimeout as sleep } from 'node:timers/promises'
import type { Stream } from '@libp2p/interface'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeSeedAnswer,
  maxSeedMessageBytes,
  maxToldJobs,
  parseSeedRequest,
  type PlaceRequest,
  type SeedAnswer,
  type SeedRequest,
} from '../../../protocol/messages/seed.ts'
import type { SeedProgress } from '../../../protocol/seed-job.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Peer } from '../peer.ts'
import type { ServedSeeds } from '../served-data.ts'

/** Codes that a member is told, since it acts differently on each. Other failures are this host's business. */
const toldCodes = ['busy', 'denied', 'missing', 'conflict'] as const
/** Progress is sent this often, also where there is none: it is the target's sign of life (ms). */
const progressIntervalMs = 1_000
/** How long the asker may take to accept one message before it counts as gone (ms). */
const acceptTimeoutMs = 10_000

/**
 * Answers the one request of a stream. A placement ends when the asker goes away.
 * @throws invalid where the asker breaks the protocol; unavailable where the stream breaks
 */
export async function serveSeed(
  stream: Stream,
  { id: peer, source }: Pick<Peer, 'id' | 'source'>,
  served: ServedSeeds,
  { signal }: { signal: AbortSignal },
): Promise<void> {
  const frames = readFrames(stream, maxSeedMessageBytes)
  const { done, value } = await frames.next()
  if (done === true) return
  const request = parseSeedRequest(value)
  const gone = new AbortController()
  // The asker sends nothing more: the next that comes is the end of the stream.
  void frames.next().then(
    () => gone.abort(new P2pfsError('closed', 'the asker has gone')),
    (error: unknown) => gone.abort(error),
  )
  const send = async (answer: SeedAnswer): Promise<void> =>
    await writeFrame(stream, [encodeSeedAnswer(answer)], {
      signal: AbortSignal.any([gone.signal, AbortSignal.timeout(acceptTimeoutMs)]),
    })
  try {
    if (request.type === 'place')
      await servePlacement(request, { peer, served, send, signal: AbortSignal.any([signal, gone.signal]) })
    else for await (const answer of answersOf(request, { peer, source }, served)) await send(answer)
    await stream.close()
  } catch (error) {
    gone.abort(error)
    throw error
  }
}

async function* answersOf(
  request: Exclude<SeedRequest, { type: 'place' }>,
  { peer, source }: { peer: string; source: string },
  served: ServedSeeds,
): AsyncGenerator<SeedAnswer> {
  try {
    switch (request.type) {
      case 'keep':
        yield { type: 'job', job: await served.keptJob(request.job, peer) }
        return
      case 'release':
        await served.released(request.job, peer)
        break
      case 'mounted':
        served.mounted(request.images, source)
        break
      case 'jobs':
        for (const job of served.jobs().slice(0, maxToldJobs)) yield { type: 'job', job }
    }
    yield { type: 'done' }
  } catch (error) {
    yield refusalOf(error)
  }
}

async function servePlacement(
  request: PlaceRequest,
  {
    peer,
    served,
    send,
    signal,
  }: { peer: string; served: ServedSeeds; send: (answer: SeedAnswer) => Promise<void>; signal: AbortSignal },
): Promise<void> {
  let progress: SeedProgress = { held: 0, verified: 0, total: 0 }
  const answer = served
    .placed(request, { peer, signal, onProgress: (now) => (progress = now) })
    .then(({ held, verified, total }): SeedAnswer => ({ type: 'held', held, verified, total }), refusalOf)
  for (;;) {
    const waited = new AbortController()
    const interval = sleep(progressIntervalMs, undefined, { signal: AbortSignal.any([signal, waited.signal]) })
    const ended = await Promise.race([answer, interval.catch(() => undefined)])
    waited.abort()
    signal.throwIfAborted()
    if (ended !== undefined) return await send(ended)
    const { held, verified, total } = progress
    await send({ type: 'progress', held, verified, total })
  }
}

function refusalOf(error: unknown): SeedAnswer {
  return { type: 'refused', code: isP2pfsError(error, ...toldCodes) ? error.code : 'unavailable' }
}
