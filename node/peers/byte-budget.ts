interface Waiter {
  peer: string
  bytes: number
  start: () => void
}

/**
 * Bounds the bytes in memory that wait to be sent, those for one peer and those for all. A caller that asks for more waits
 * until others have been sent.
 */
export class ByteBudget {
  readonly #perPeer: number
  readonly #inAll: number
  readonly #freeBytes: number
  readonly #usedByPeer = new Map<string, number>()
  #used = 0
  /** In the order in which they came. */
  readonly #waiting = new Set<Waiter>()

  /**
   * @param options `perPeer`, `inAll`: bytes; `freeBytes`: a peer that has none in use gets so many even where the
   *   bound on all is reached, so that no peer can keep the others from being served
   */
  constructor({ perPeer, inAll, freeBytes }: { perPeer: number; inAll: number; freeBytes: number }) {
    this.#perPeer = perPeer
    this.#inAll = inAll
    this.#freeBytes = freeBytes
  }

  /** Bytes in use, of all peers. */
  get usedBytes(): number {
    return this.#used
  }

  /** Takes bytes where there are enough. @returns whether it did */
  tryTake(peer: string, bytes: number): boolean {
    const usedByPeer = this.#usedByPeer.get(peer) ?? 0
    if (usedByPeer > 0 && usedByPeer + bytes > this.#perPeer) return false
    const isFree = usedByPeer === 0 && bytes <= this.#freeBytes
    if (!isFree && this.#used > 0 && this.#used + bytes > this.#inAll) return false
    this.#usedByPeer.set(peer, usedByPeer + bytes)
    this.#used += bytes
    return true
  }

  /**
   * Runs the task when there are enough bytes for it, and gives them back at its end.
   * @throws the signal's reason while it waits; what the task throws
   */
  async run<T>(
    { peer, bytes, signal }: { peer: string; bytes: number; signal: AbortSignal },
    task: () => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted()
    if (!this.tryTake(peer, bytes)) await this.#wait(peer, bytes, signal)
    try {
      return await task()
    } finally {
      this.giveBack(peer, bytes)
    }
  }

  async #wait(peer: string, bytes: number, signal: AbortSignal): Promise<void> {
    const turn = Promise.withResolvers<undefined>()
    const waiter: Waiter = { peer, bytes, start: () => turn.resolve(undefined) }
    const onAbort = (): void => {
      if (this.#waiting.delete(waiter)) turn.reject(signal.reason as Error)
    }
    this.#waiting.add(waiter)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await turn.promise
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  giveBack(peer: string, bytes: number): void {
    const left = (this.#usedByPeer.get(peer) ?? 0) - bytes
    if (left > 0) this.#usedByPeer.set(peer, left)
    else this.#usedByPeer.delete(peer)
    this.#used -= bytes
    for (const waiter of this.#waiting) {
      if (!this.tryTake(waiter.peer, waiter.bytes)) continue
      this.#waiting.delete(waiter)
      waiter.start()
    }
  }
}
