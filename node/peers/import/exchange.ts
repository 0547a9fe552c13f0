import { setTimeout as sleep } from 'node:timers/promises'
import type { Stream } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import {
  encodeImportAnswer,
  encodeImportRequest,
  maxImportAnswerBytes,
  maxImportRequestBytes,
  maxLayersPerMessage,
  parseImportAnswer,
  parseImportRequest,
  type ImportAnswer,
  type ImportRequest,
} from '../../../protocol/messages/import.ts'
import { readFrames, writeFrame } from '../frames.ts'

/** The steward says something this often, milliseconds. */
const beatMs = 500
/** Sooner where a layer has been read, with those that are in the next moment, milliseconds. */
const gatherMs = 100
/** An asker that does not take what it is told for so long is gone, milliseconds. */
const takeTimeoutMs = 10_000
/** A steward that says nothing for so long is given up, milliseconds; as long as a ping may take. */
export const silenceMs = 5_000
/** One that says that it lives must get on: so many bytes of the layers (or to their end) in so many milliseconds. */
const pace = { bytes: 1024 * 1024, ms: 120_000 } as const
/** Answers that may come at once, and each second after that; more is a flood. */
const maxAnswers = { atOnce: 64, perSecond: 16 } as const

export interface ImportProgress {
  doneBytes: number
  totalBytes: number
}

export interface ImportTold {
  onProgress: (progress: ImportProgress) => void
  /** A layer has been read, and its index can be taken. */
  onLayer: (diffId: Digest) => void
}

/** Imports an image for a peer. @throws with the code that the peer is told */
export type ImportForPeer = (
  request: ImportRequest,
  options: ImportTold & { signal: AbortSignal; peer: string },
) => Promise<ImageRecord>

/**
 * Answers the one request of a stream: runs the import, which is aborted when the asker goes away.
 * @throws invalid where the asker breaks the protocol; unavailable where the stream breaks
 */
export async function serveImport(
  stream: Stream,
  run: ImportForPeer,
  { signal, peer }: { signal: AbortSignal; peer: string },
): Promise<void> {
  const frames = readFrames(stream, maxImportRequestBytes)
  const { done, value } = await frames.next()
  if (done === true) return
  const request = parseImportRequest(value)
  const gone = new AbortController()
  const either = AbortSignal.any([signal, gone.signal])
  let abuse: P2pfsError | undefined
  // The asker has nothing more to say: what comes next is its end.
  void frames.next().then(
    ({ done: ended }) => {
      if (ended !== true) abuse = new P2pfsError('invalid', 'more than one request for an import on a stream')
      gone.abort(abuse ?? new P2pfsError('closed', 'the asker has gone'))
    },
    (error: unknown) => {
      if (isP2pfsError(error, 'invalid')) abuse = error
      gone.abort(error)
    },
  )
  let progress = { doneBytes: 0, totalBytes: 0 }
  const layers: Digest[] = []
  let news = Promise.withResolvers<undefined>()
  const answer = run(request, {
    signal: either,
    peer,
    onProgress: ({ doneBytes, totalBytes }) => (progress = { doneBytes: Math.min(doneBytes, totalBytes), totalBytes }),
    onLayer: (diffId) => {
      layers.push(diffId)
      news.resolve(undefined)
    },
  }).then(
    (record): ImportAnswer => ({ type: 'image', record }),
    (error: unknown): ImportAnswer => ({ type: 'refused', code: isP2pfsError(error) ? error.code : 'unavailable' }),
  )
  const send = async (message: ImportAnswer): Promise<void> =>
    await writeFrame(stream, [encodeImportAnswer(message)], {
      signal: AbortSignal.any([gone.signal, AbortSignal.timeout(takeTimeoutMs)]),
    })
  try {
    for (;;) {
      const gathered = news.promise.then(async () => await sleep(gatherMs))
      const ended = await Promise.race([answer, gathered, sleep(beatMs, undefined, { signal: gone.signal })])
      gone.signal.throwIfAborted()
      if (ended !== undefined) {
        await send(ended)
        break
      }
      news = Promise.withResolvers()
      await send({ type: 'progress', ...progress, layers: layers.splice(0, maxLayersPerMessage) })
    }
    await stream.close()
  } catch (error) {
    gone.abort(error)
    throw abuse ?? error
  }
}

/** What becomes of a request to a steward. */
export type ImportOutcome = { record: ImageRecord } | { refused: ErrorCode }

/**
 * Asks a peer to import an image, or to let this host wait for an import that is under way there.
 * @throws timeout where it falls silent, or does not get on; invalid where it breaks the protocol or answers for another
 *   image; unavailable where the connection is lost
 */
export async function askImport(
  open: (signal: AbortSignal) => Promise<Stream>,
  request: ImportRequest,
  { signal, onProgress, onLayer }: ImportTold & { signal: AbortSignal },
): Promise<ImportOutcome> {
  const late = new AbortController()
  const silence = setTimeout(
    () => late.abort(new P2pfsError('timeout', 'the steward is silent', { timeoutMs: silenceMs })),
    silenceMs,
  )
  const either = AbortSignal.any([signal, late.signal])
  let stream: Stream | undefined
  const onAbort = (): void => stream?.abort(either.reason as Error)
  either.addEventListener('abort', onAbort, { once: true })
  const checkPace = paceKeeper()
  const begun = performance.now()
  let answers = 0
  try {
    stream = await open(either)
    either.throwIfAborted()
    await writeFrame(stream, [encodeImportRequest(request)], { signal: either })
    for await (const bytes of readFrames(stream, maxImportAnswerBytes)) {
      const answer = parseImportAnswer(bytes)
      if (++answers > maxAnswers.atOnce + ((performance.now() - begun) / 1000) * maxAnswers.perSecond)
        throw new P2pfsError('invalid', 'the steward sends more than anybody needs')
      silence.refresh()
      switch (answer.type) {
        case 'progress':
          checkPace(answer)
          onProgress(answer)
          for (const layer of answer.layers) onLayer(layer)
          break
        case 'refused':
          return { refused: answer.code }
        case 'image':
          checkRecord(answer.record, request)
          return { record: answer.record }
      }
    }
    throw new P2pfsError('unavailable', 'the steward closed the stream without an answer')
  } catch (error) {
    either.throwIfAborted()
    throw error
  } finally {
    clearTimeout(silence)
    either.removeEventListener('abort', onAbort)
    // Not closed but reset: the steward ends its work if nobody else wants it.
    stream?.abort(new P2pfsError('closed', 'asker is done'))
  }
}

/** @returns what throws timeout when the progress is too slow */
function paceKeeper(): (progress: ImportProgress) => void {
  let at = performance.now()
  let doneBytes = 0
  return (progress) => {
    const now = performance.now()
    const gained = progress.doneBytes - doneBytes
    if (gained >= pace.bytes || (gained > 0 && progress.doneBytes === progress.totalBytes)) {
      at = now
      doneBytes = progress.doneBytes
    } else if (now - at > pace.ms)
      throw new P2pfsError('timeout', 'the steward does not get on', { timeoutMs: pace.ms })
  }
}

/** @throws invalid */
function checkRecord(record: ImageRecord, request: ImportRequest): void {
  for (const key of ['reference', 'platform', 'format', 'manifestDigest'] as const) {
    if (record[key] !== request[key])
      throw new P2pfsError('invalid', 'steward answers for another image than was asked for', { field: key })
  }
}
