import type { Libp2p } from '@libp2p/interface'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeSeedRequest,
  maxSeedMessageBytes,
  maxToldJobs,
  parseSeedAnswer,
  seedProtocol,
  type PlaceRequest,
  type SeedAnswer,
  type SeedRequest,
  type ToldMount,
} from '../../../protocol/messages/seed.ts'
import type { SeedJob, SeedProgress } from '../../../protocol/seed-job.ts'
import { systemClock, type Clock } from '../../base/clock.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Membership } from '../membership.ts'
import { QuestionStream } from '../question-stream.ts'

/** A target that says nothing for so long is given up (ms): it gives a sign every second, and may be busy with chunks. */
const silenceMs = 10_000
/** How long a member may take for an answer from memory or its catalog (ms). */
const answerMs = 5_000
/** Answers that may come at once, and in each second after that; more are a flood. */
const maxAnswers = { atOnce: 32, perSecond: 4 } as const

export interface SeedClientParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'reach' | 'ban'>
  clock?: Clock
}

/** Asks members to hold images, and to keep and to tell jobs. A member that breaks the protocol is banned. */
export class SeedClient {
  readonly #parts: SeedClientParts
  readonly #clock: Clock

  constructor(parts: SeedClientParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
  }

  /**
   * Asks a member to make an image whole there and to pin it. Resolves when it has every chunk, and has hashed every one.
   * @throws what the member refuses with; timeout where it falls silent; unavailable where the connection is lost
   */
  async place(
    peer: string,
    request: PlaceRequest,
    { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: SeedProgress) => void },
  ): Promise<SeedProgress> {
    const message: SeedRequest = { type: 'place', ...request }
    for await (const answer of this.#ask(peer, message, { signal, silenceMs, isPaced: true })) {
      if (answer.type === 'progress') onProgress(answer)
      else if (answer.type === 'held') return answer
      else throw misfit(answer)
    }
    throw unanswered(peer)
  }

  /** Has a member keep a job. @returns the newest record of it that is there. @throws as {@link place} */
  async keep(peer: string, job: SeedJob, { signal }: { signal: AbortSignal }): Promise<SeedJob> {
    for await (const answer of this.#ask(peer, { type: 'keep', job }, { signal, silenceMs: answerMs })) {
      if (answer.type === 'job' && answer.job.id === job.id) return answer.job
      throw misfit(answer)
    }
    throw unanswered(peer)
  }

  /** Ends the pins of a job on a member. @throws as {@link place} */
  async release(peer: string, job: string, { signal }: { signal: AbortSignal }): Promise<void> {
    for await (const answer of this.#ask(peer, { type: 'release', job }, { signal, silenceMs: answerMs })) {
      if (answer.type === 'done') return
      throw misfit(answer)
    }
    throw unanswered(peer)
  }

  /** The jobs that a member keeps. @throws as {@link place} */
  async jobs(peer: string, { signal }: { signal: AbortSignal }): Promise<SeedJob[]> {
    const jobs: SeedJob[] = []
    for await (const answer of this.#ask(peer, { type: 'jobs' }, { signal, silenceMs: answerMs })) {
      if (answer.type === 'done') return jobs
      if (answer.type !== 'job' || jobs.length >= maxToldJobs) throw misfit(answer)
      jobs.push(answer.job)
    }
    throw unanswered(peer)
  }

  /** Tells a member what this host has mounted. @throws as {@link place} */
  async mounted(peer: string, images: ToldMount[], { signal }: { signal: AbortSignal }): Promise<void> {
    for await (const answer of this.#ask(peer, { type: 'mounted', images }, { signal, silenceMs: answerMs })) {
      if (answer.type === 'done') return
      throw misfit(answer)
    }
    throw unanswered(peer)
  }

  /** The answers of a member, until the caller has enough. A refusal is thrown. */
  async *#ask(
    peerId: string,
    request: SeedRequest,
    { signal, silenceMs, isPaced = false }: { signal: AbortSignal; silenceMs: number; isPaced?: boolean },
  ): AsyncGenerator<SeedAnswer> {
    const { host, membership } = this.#parts
    const peer = await membership.reach(peerId, { signal })
    const silent = new AbortController()
    const ended = AbortSignal.any([signal, silent.signal])
    const giveUp = (): void =>
      silent.abort(new P2pfsError('timeout', 'the member is silent', { peer: peerId, timeoutMs: silenceMs }))
    let cancel = this.#clock.after(silenceMs, giveUp)
    const startedAtMs = this.#clock.now()
    let answers = 0
    try {
      using question = await QuestionStream.open(host, peer, seedProtocol, { signal: ended })
      const { stream } = question
      await writeFrame(stream, [encodeSeedRequest(request)], { signal: ended })
      for await (const bytes of readFrames(stream, maxSeedMessageBytes)) {
        const answer = parseSeedAnswer(bytes)
        const seconds = (this.#clock.now() - startedAtMs) / 1000
        if (isPaced && ++answers > maxAnswers.atOnce + seconds * maxAnswers.perSecond)
          throw new P2pfsError('invalid', 'the member sends too many answers')
        cancel()
        cancel = this.#clock.after(silenceMs, giveUp)
        if (answer.type === 'refused')
          throw new RefusalError(answer.code, `the member refuses: ${answer.code}`, { peer: peerId })
        yield answer
      }
    } catch (error) {
      ended.throwIfAborted()
      if (error instanceof RefusalError) throw error
      if (isP2pfsError(error, 'invalid')) membership.ban(peer, error)
      throw isP2pfsError(error)
        ? error
        : new P2pfsError('unavailable', `cannot ask the member: ${(error as Error).message}`, {
            cause: error,
            peer: peerId,
          })
    } finally {
      cancel()
    }
  }
}

/** A member's own answer, whatever its code: no fault of its protocol. */
class RefusalError extends P2pfsError {}

const misfit = ({ type }: SeedAnswer): P2pfsError =>
  new P2pfsError('unavailable', `the member gives an answer to another question: ${type}`)

const unanswered = (peer: string): P2pfsError =>
  new P2pfsError('unavailable', 'the member closed the stream without an answer', { peer })
