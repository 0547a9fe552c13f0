/** A few tasks at once, and a turn for each key: who has many tasks waits for his own, not others for his. */
export class FairTurns {
  #free: number
  /** The tasks that wait, by key; the key whose turn is next comes first. */
  readonly #waiting = new Map<string, (() => void)[]>()

  /** @param options `atOnce`: tasks that run at once */
  constructor({ atOnce }: { atOnce: number }) {
    this.#free = atOnce
  }

  /** Runs the task when it is its turn. @throws what the task throws */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((resolve) => this.#wait(key, resolve))
    try {
      return await task()
    } finally {
      this.#next()
    }
  }

  #wait(key: string, start: () => void): void {
    const ofKey = this.#waiting.get(key)
    if (ofKey === undefined) this.#waiting.set(key, [start])
    else ofKey.push(start)
  }

  #next(): void {
    for (const [key, starts] of this.#waiting) {
      this.#waiting.delete(key)
      const start = starts.shift()
      if (starts.length > 0) this.#waiting.set(key, starts)
      start?.()
      return
    }
    this.#free++
  }
}
