import { setTimeout as sleep } from 'node:timers/promises'
import type { Stream } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import {
  encodeImportAnswer,
  maxImportRequestBytes,
  maxLayersPerMessage,
  parseImportRequest,
  type ImportAnswer,
} from '../../../protocol/messages/import.ts'
import type { ByteProgress } from '../../model/progress.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Peer } from '../peer.ts'
import type { ServedData } from '../served-data.ts'

/** Codes that the asker is told. Other failures are this host's business, and one code stands for them. */
const toldCodes = ['busy', 'invalid'] as const

/** Progress is sent this often, also where there is none: it is the steward's sign of life (ms). */
const progressIntervalMs = 500
/** After the end of a layer, progress is sent within this time, with all layers that have ended until then (ms). */
const gatherMs = 100
/** How long the asker may take to accept one message before it counts as gone (ms). */
const acceptTimeoutMs = 10_000

/**
 * Answers the one request of a stream: runs the import, and aborts it when the asker goes away.
 * @throws invalid where the asker breaks the protocol; unavailable where the stream breaks, or the peer is no member
 */
export async function serveImport(
  stream: Stream,
  peer: Pick<Peer, 'id' | 'hello'>,
  served: Pick<ServedData, 'importedImage'>,
  { signal }: { signal: AbortSignal },
): Promise<void> {
  if (peer.hello === undefined) throw new P2pfsError('unavailable', 'peer has not said hello')
  const frames = readFrames(stream, maxImportRequestBytes)
  const { done, value } = await frames.next()
  if (done === true) return
  const request = parseImportRequest(value)
  const gone = new AbortController()
  let abuse: P2pfsError | undefined
  // The asker sends nothing more: the next that comes is the end of the stream.
  void frames.next().then(
    ({ done: hasEnded }) => {
      if (hasEnded !== true) abuse = new P2pfsError('invalid', 'more than one import request on a stream')
      gone.abort(abuse ?? new P2pfsError('closed', 'the asker has gone'))
    },
    (error: unknown) => {
      if (isP2pfsError(error, 'invalid')) abuse = error
      gone.abort(error)
    },
  )
  let progress: ByteProgress = { doneBytes: 0, totalBytes: 0 }
  const layers: Digest[] = []
  let layerRead = Promise.withResolvers<undefined>()
  const answer = served
    .importedImage(request, {
      signal: AbortSignal.any([signal, gone.signal]),
      peer: peer.id,
      onProgress: ({ doneBytes, totalBytes }) =>
        (progress = { doneBytes: Math.min(doneBytes, totalBytes), totalBytes }),
      onLayer: (diffId) => {
        layers.push(diffId)
        layerRead.resolve(undefined)
      },
    })
    .then(
      (record): ImportAnswer => ({ type: 'image', record }),
      (error: unknown): ImportAnswer => ({ type: 'refused', code: codeOf(error) }),
    )
  const send = async (message: ImportAnswer): Promise<void> =>
    await writeFrame(stream, [encodeImportAnswer(message)], {
      signal: AbortSignal.any([gone.signal, AbortSignal.timeout(acceptTimeoutMs)]),
    })
  try {
    // At once: an asker goes on to another member where nothing comes.
    await send({ type: 'progress', ...progress, layers: [] })
    for (;;) {
      const gathered = layerRead.promise.then(async () => await sleep(gatherMs))
      const interval = sleep(progressIntervalMs, undefined, { signal: gone.signal })
      const ended = await Promise.race([answer, gathered, interval])
      gone.signal.throwIfAborted()
      if (ended !== undefined) {
        await send(ended)
        break
      }
      layerRead = Promise.withResolvers()
      await send({ type: 'progress', ...progress, layers: layers.splice(0, maxLayersPerMessage) })
    }
    await stream.close()
  } catch (error) {
    gone.abort(error)
    throw abuse ?? error
  }
}

function codeOf(error: unknown): ErrorCode {
  return isP2pfsError(error, ...toldCodes) ? error.code : 'denied'
}
