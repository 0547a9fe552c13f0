/** Chunks that a sink is keeping at once: a bound on their bytes, and the first failure. */
export class PutsInFlight {
  readonly #maxBytes: number
  readonly #puts = new Set<Promise<void>>()
  #bytes = 0
  #failure: unknown

  /** @param options `maxBytes`: enough to fill the disk's queue; with copies most of the memory of an import */
  constructor({ maxBytes }: { maxBytes: number }) {
    this.#maxBytes = maxBytes
  }

  add(lengthBytes: number, put: Promise<void>): void {
    this.#bytes += lengthBytes
    const settled = put
      .catch((error: unknown) => {
        this.#failure ??= error
      })
      .finally(() => {
        this.#puts.delete(settled)
        this.#bytes -= lengthBytes
      })
    this.#puts.add(settled)
  }

  /** Waits until there is room for more. @throws the first failure */
  async room(): Promise<void> {
    while (this.#bytes >= this.#maxBytes) await Promise.race(this.#puts)
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Waits until all are kept. @throws the first failure */
  async settled(): Promise<void> {
    await Promise.all(this.#puts)
    if (this.#failure !== undefined) throw this.#failure
  }
}
