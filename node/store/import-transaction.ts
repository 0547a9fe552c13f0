import type { Digest } from '../../protocol/digest.ts'

export interface ImportTransactionsParts {
  /** @returns whether the chunk was not here before */
  put: (digest: Digest, bytes: Uint8Array) => Promise<boolean>
  discard: (digest: Digest) => Promise<void>
  /** Whether a rootfs that this host knows has the chunk. */
  isKnown: (digest: Digest) => boolean
}

/** A chunk that running imports have put or found. */
interface Use {
  imports: number
  /** One of them has written it, and none that did is done. */
  fresh: boolean
}

/** Remembers what running imports put, so that one that can never succeed leaves nothing behind. */
export class ImportTransactions {
  readonly #parts: ImportTransactionsParts
  readonly #uses = new Map<Digest, Use>()

  constructor(parts: ImportTransactionsParts) {
    this.#parts = parts
  }

  begin(): ImportTransaction {
    return new ImportTransaction(this.#parts, this.#uses)
  }
}

/** The chunks of one import; ends with {@link commit} or {@link rollback}. */
export class ImportTransaction {
  readonly #parts: ImportTransactionsParts
  readonly #uses: Map<Digest, Use>
  readonly #used = new Set<Digest>()
  readonly #pending = new Set<Promise<boolean>>()

  constructor(parts: ImportTransactionsParts, uses: Map<Digest, Use>) {
    this.#parts = parts
    this.#uses = uses
  }

  /** Resolves when the chunk is kept. @throws what the store throws */
  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const use = this.#uses.get(digest) ?? { imports: 0, fresh: false }
    if (!this.#used.has(digest)) {
      this.#used.add(digest)
      use.imports++
      this.#uses.set(digest, use)
    }
    const putting = this.#parts.put(digest, bytes)
    this.#pending.add(putting)
    try {
      if (await putting) use.fresh = true
    } finally {
      this.#pending.delete(putting)
    }
  }

  /** What has been put stays. */
  commit(): void {
    for (const [digest, use] of this.#end()) {
      use.fresh = false
      if (use.imports === 0) this.#uses.delete(digest)
    }
  }

  /** Removes what was not there before, unless a known rootfs or another running import has it too. */
  async rollback(): Promise<void> {
    await Promise.allSettled(this.#pending)
    const gone: Digest[] = []
    for (const [digest, use] of this.#end()) {
      if (use.imports > 0) continue
      this.#uses.delete(digest)
      if (use.fresh && !this.#parts.isKnown(digest)) gone.push(digest)
    }
    for (const digest of gone) await this.#parts.discard(digest)
  }

  *#end(): Generator<[Digest, Use]> {
    for (const digest of this.#used) {
      const use = this.#uses.get(digest)!
      use.imports--
      yield [digest, use]
    }
    this.#used.clear()
  }
}
