/**
 * A few tasks at once: those of a lower rank first, and among those of one rank a turn for each key: who has many tasks
 * waits for his own, not others for his.
 */
export class FairTurns {
  readonly #atOnce: number
  readonly #reserved: number
  #running = 0
  /** The tasks that wait, by rank and key; the key whose turn is next comes first. */
  readonly #waiting: Map<string, (() => void)[]>[] = []

  /** @param options `atOnce`: tasks that run at once; `reserved`: how many of these are for tasks of rank 0 */
  constructor({ atOnce, reserved = 0 }: { atOnce: number; reserved?: number }) {
    this.#atOnce = atOnce
    this.#reserved = reserved
  }

  /** Runs the task when it is its turn. @throws what the task throws */
  async run<T>(key: string, task: () => Promise<T>, { rank = 0 }: { rank?: number } = {}): Promise<T> {
    if (this.#mayRun(rank)) this.#running++
    else await new Promise<void>((resolve) => this.#wait(key, rank, resolve))
    try {
      return await task()
    } finally {
      this.#running--
      this.#startNext()
    }
  }

  #mayRun(rank: number): boolean {
    return this.#running < this.#atOnce - (rank === 0 ? 0 : this.#reserved)
  }

  #wait(key: string, rank: number, start: () => void): void {
    const waiting = (this.#waiting[rank] ??= new Map())
    const ofKey = waiting.get(key)
    if (ofKey === undefined) waiting.set(key, [start])
    else ofKey.push(start)
  }

  #startNext(): void {
    for (const [rank, waiting = new Map<string, (() => void)[]>()] of this.#waiting.entries()) {
      const [next] = waiting
      if (next === undefined) continue
      if (!this.#mayRun(rank)) return
      const [key, starts] = next
      waiting.delete(key)
      const start = starts.shift()
      if (starts.length > 0) waiting.set(key, starts)
      this.#running++
      start?.()
      return
    }
  }
}
