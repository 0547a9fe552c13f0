import { P2pfsError } from '../../protocol/errors.ts'

interface Waiter {
  peer: string
  bytes: number
  start: () => void
}

/**
 * Bytes in memory that wait to be sent: those of one peer and those of all are bounded. Who asks for more waits until
 * others have been sent.
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
   * Takes bytes when there are enough.
   * @returns gives them back when it is disposed of
   * @throws the signal's reason
   */
  async take(peer: string, bytes: number, { signal }: { signal: AbortSignal }): Promise<Disposable> {
    signal.throwIfAborted()
    if (!this.tryTake(peer, bytes)) {
      const turn = Promise.withResolvers<undefined>()
      const waiter: Waiter = { peer, bytes, start: () => turn.resolve(undefined) }
      const onAbort = (): void => {
        if (this.#waiting.delete(waiter)) turn.reject(signal.reason as P2pfsError)
      }
      this.#waiting.add(waiter)
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        await turn.promise
      } finally {
        signal.removeEventListener('abort', onAbort)
      }
    }
    let isTaken = true
    return {
      [Symbol.dispose]: () => {
        if (isTaken) this.giveBack(peer, bytes)
        isTaken = false
      },
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
