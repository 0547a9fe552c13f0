/** Counts the inbound connections that were let in, by source. */
export class AdmittedConnections {
  readonly #bySource = new Map<string, number>()
  readonly #perSource: number

  /** @param options `perSource`: open connections of one source at most */
  constructor({ perSource }: { perSource: number }) {
    this.#perSource = perSource
  }

  /** @returns ends the connection's place when it is called; undefined where the source has too many */
  add(source: string): (() => void) | undefined {
    const count = this.#bySource.get(source) ?? 0
    if (count >= this.#perSource) return undefined
    this.#bySource.set(source, count + 1)
    return () => {
      const left = (this.#bySource.get(source) ?? 0) - 1
      if (left > 0) this.#bySource.set(source, left)
      else this.#bySource.delete(source)
    }
  }
}
