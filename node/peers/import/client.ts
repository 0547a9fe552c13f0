import type { Libp2p } from '@libp2p/interface'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import {
  encodeImportRequest,
  importProtocol,
  maxImportAnswerBytes,
  parseImportAnswer,
  type ImportRequest,
} from '../../../protocol/messages/import.ts'
import type { ByteProgress } from '../../model/progress.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'
import type { PeerStanding } from '../peer-standing.ts'
import { QuestionStream } from '../question-stream.ts'
import type { ImportEvents } from '../served-data.ts'

/**
 * A steward that says nothing at all for so long is given up (ms): it speaks as soon as it is asked, and a mount waits.
 */
const firstSignMs = 1_000
/** So often the time begins anew while the steward gets on with other things: its words may wait behind chunks. */
const maxFirstSigns = 3
/** A steward that has spoken and says nothing for so long is given up (ms): as long as a ping may take. */
const silenceMs = 5_000
/**
 * A steward that gives signs of life must also get on: it reads so many bytes of the layers, or the rest, in so long
 * (ms).
 */
const pace = { bytes: 1024 * 1024, ms: 120_000 } as const
/** Answers that may come at once, and in each second after that; more are a flood. */
const maxAnswers = { atOnce: 64, perSecond: 16 } as const

/** How a steward ends a request: with the record of the image, or with a refusal. */
export type ImportOutcome = { record: ImageRecord } | { refused: ErrorCode }

export interface ImportClientParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'reach' | 'ban'>
}

/** Asks peers to import images for this host. */
export class ImportClient {
  readonly #parts: ImportClientParts

  constructor(parts: ImportClientParts) {
    this.#parts = parts
  }

  /**
   * Asks a peer to import an image, or to let this host wait for an import that is under way there. A peer that breaks
   * the protocol, or answers for another image, is banned.
   * @throws timeout where the peer falls silent or is too slow; invalid; unavailable where the connection is lost
   */
  async askImport(
    peerId: string,
    request: ImportRequest,
    { signal, ...events }: ImportEvents & { signal: AbortSignal },
  ): Promise<ImportOutcome> {
    const { membership } = this.#parts
    const peer = await membership.reach(peerId, { signal })
    try {
      return await this.#ask(peer, request, { signal, ...events })
    } catch (error) {
      signal.throwIfAborted()
      if (isP2pfsError(error, 'invalid')) membership.ban(peer, error)
      if (isP2pfsError(error, 'timeout')) peer.standing.fellSilent()
      throw isP2pfsError(error)
        ? error
        : new P2pfsError('unavailable', `cannot ask the peer: ${(error as Error).message}`, {
            cause: error,
            peer: peerId,
          })
    }
  }

  async #ask(
    peer: Peer,
    request: ImportRequest,
    { signal, onProgress, onLayer }: ImportEvents & { signal: AbortSignal },
  ): Promise<ImportOutcome> {
    const silence = new SilenceWatch(peer.standing)
    const ended = AbortSignal.any([signal, silence.signal])
    const checkPace = createPaceCheck()
    const checkRate = createRateCheck()
    try {
      using question = await QuestionStream.open(this.#parts.host, peer, importProtocol, { signal: ended })
      const { stream } = question
      await writeFrame(stream, [encodeImportRequest(request)], { signal: ended })
      for await (const bytes of readFrames(stream, maxImportAnswerBytes)) {
        const answer = parseImportAnswer(bytes)
        checkRate()
        silence.restart()
        peer.standing.gotOn()
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
      ended.throwIfAborted()
      throw error
    } finally {
      silence.stop()
    }
  }
}

/** Aborts its signal when nothing has come for {@link firstSignMs}, or nothing more for {@link silenceMs}. */
class SilenceWatch {
  readonly #silent = new AbortController()
  #timer: NodeJS.Timeout

  constructor(standing: Pick<PeerStanding, 'lastSignMs'>) {
    let times = 0
    const wait = (): NodeJS.Timeout => {
      const { lastSignMs } = standing
      return setTimeout(() => {
        if (++times < maxFirstSigns && standing.lastSignMs > lastSignMs) this.#timer = wait()
        else this.#giveUp(firstSignMs)
      }, firstSignMs)
    }
    this.#timer = wait()
  }

  get signal(): AbortSignal {
    return this.#silent.signal
  }

  restart(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#giveUp(silenceMs), silenceMs)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #giveUp(timeoutMs: number): void {
    this.#silent.abort(new P2pfsError('timeout', 'the steward is silent', { timeoutMs }))
  }
}

/** @returns a check that throws `timeout` when the progress that it is given is too slow */
function createPaceCheck(): (progress: ByteProgress) => void {
  let lastGainAt = performance.now()
  let lastDoneBytes = 0
  return ({ doneBytes, totalBytes }) => {
    const now = performance.now()
    const gainedBytes = doneBytes - lastDoneBytes
    if (gainedBytes >= pace.bytes || (gainedBytes > 0 && doneBytes === totalBytes)) {
      lastGainAt = now
      lastDoneBytes = doneBytes
    } else if (now - lastGainAt > pace.ms)
      throw new P2pfsError('timeout', 'the steward is too slow', { timeoutMs: pace.ms })
  }
}

/** @returns a check, called for each answer, that throws `invalid` when there are too many */
function createRateCheck(): () => void {
  const startedAt = performance.now()
  let answers = 0
  return () => {
    const seconds = (performance.now() - startedAt) / 1000
    if (++answers > maxAnswers.atOnce + seconds * maxAnswers.perSecond)
      throw new P2pfsError('invalid', 'the steward sends too many answers')
  }
}

/** @throws invalid where the record is of another image than the one that was asked for */
function checkRecord(record: ImageRecord, request: ImportRequest): void {
  for (const key of ['reference', 'platform', 'format', 'manifestDigest'] as const) {
    if (record[key] !== request[key])
      throw new P2pfsError('invalid', 'the steward answers for another image', { field: key })
  }
}
