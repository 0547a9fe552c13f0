import { P2pfsError } from '../../../protocol/errors.ts'
import type { Clock } from '../../base/clock.ts'
import type { PeerStanding } from '../peer-standing.ts'

/**
 * A member that has not begun to answer for so long, and gets on with nothing else, is silent (ms): answers are in its
 * memory or catalog.
 */
export const firstSignMs = 1_000
/** The same, where it gets on with something else: its answer may wait behind chunks on the link (ms). */
export const busyFirstSignMs = 3_000
/** A check that comes so late (ms) tells of a pause of this host, not of the member. */
const ownPauseMs = 250
/** A member that has begun to answer sends so many bytes in so long (ms), or the rest; less counts as silence. */
export const leastPace = { bytes: 64 * 1024, ms: 2_000 } as const
/** So many bytes of an answer that goes on are a sign that the member gets on; a few now and then are not. */
const signBytes = 16 * 1024
/** A longer answer than this (ms) must have come, on average, at `bytesPerMs`: 4 Mbit/s. */
export const longAnswer = { ms: 30_000, bytesPerMs: 512 } as const

export interface AnswerPaceParts {
  clock: Clock
  standing: PeerStanding
  /** Called once, when the member does not keep the pace. */
  onSilent: (error: P2pfsError) => void
}

/** Watches one answer: large ones are judged by how they get on. */
export class AnswerPace {
  readonly #parts: AnswerPaceParts
  readonly #startedAtMs: number
  #bytes = 0
  #hasBegun = false
  #windowBytes = 0
  #signBytes = 0
  #cancel: () => void = () => undefined

  constructor(parts: AnswerPaceParts) {
    this.#parts = parts
    this.#startedAtMs = parts.clock.now()
    this.#checkFirstSignIn(firstSignMs)
  }

  /** Bytes that have come. */
  get bytes(): number {
    return this.#bytes
  }

  /** Whether anything has come, if only the word that the answer comes later. */
  get hasBegun(): boolean {
    return this.#hasBegun
  }

  received(bytes: number): void {
    this.#hasBegun = true
    if (this.#bytes === 0) this.#watchPace()
    this.#bytes += bytes
    if (this.#bytes - this.#signBytes < signBytes) return
    this.#signBytes = this.#bytes
    this.#parts.standing.gotOn()
  }

  /** The member waits for what it is asked for itself: how long that may take is for the asker to say. */
  coming(): void {
    this.#cancel()
    this.#bytes = 0
    this.#signBytes = 0
    this.#parts.standing.gotOn()
  }

  stop(): void {
    this.#cancel()
  }

  /** @param lateMs how late the check comes: this host has paused, and may not have read what has come */
  #checkFirstSign(lateMs: number): void {
    const { clock, standing } = this.#parts
    if (lateMs > ownPauseMs) return this.#checkFirstSignIn(ownPauseMs)
    const dueMs = Math.min(
      Math.max(standing.lastSignMs, this.#startedAtMs) + firstSignMs,
      this.#startedAtMs + busyFirstSignMs,
    )
    const leftMs = dueMs - clock.now()
    if (leftMs > 0) this.#checkFirstSignIn(leftMs)
    else this.#silent('the member does not answer')
  }

  #checkFirstSignIn(ms: number): void {
    const { clock } = this.#parts
    const atMs = clock.now() + ms
    this.#cancel = clock.after(ms, () => this.#checkFirstSign(clock.now() - atMs))
  }

  #watchPace(): void {
    this.#cancel()
    this.#windowBytes = this.#bytes
    this.#cancel = this.#parts.clock.after(leastPace.ms, () => {
      const tookMs = this.#parts.clock.now() - this.#startedAtMs
      const isTooLong = tookMs > longAnswer.ms && this.#bytes < tookMs * longAnswer.bytesPerMs
      if (this.#bytes - this.#windowBytes < leastPace.bytes || isTooLong) this.#silent('the member answers too slowly')
      else this.#watchPace()
    })
  }

  #silent(message: string): void {
    this.#parts.standing.fellSilent()
    this.#parts.onSilent(new P2pfsError('timeout', message))
  }
}
