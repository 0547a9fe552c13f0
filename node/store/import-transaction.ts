import type { Digest } from '../../protocol/digest.ts'
import type { ChunkFiles } from '../model/chunk-sink.ts'
import type { Inventory } from './inventory.ts'

/** How a chunk is used by the transactions under way. */
interface Use {
  transactions: number
  /** One of the transactions has written the chunk, and none that has it is committed. */
  isNew: boolean
}

type Store = Pick<Inventory, 'put' | 'openThreadWriting' | 'adoptFrom' | 'discard' | 'isReferenced' | 'flush'>

/** How long a rollback waits for the room that it gives back (ms); it is free a little later otherwise. */
const reclaimMs = 10_000

/** Remembers which chunks imports under way have put, so that one that fails for good leaves nothing behind. */
export class ImportTransactions {
  readonly #inventory: Store
  readonly #uses = new Map<Digest, Use>()

  constructor({ inventory }: { inventory: Store }) {
    this.#inventory = inventory
  }

  /** Whether an import under way has the chunk. */
  has(digest: Digest): boolean {
    return this.#uses.has(digest)
  }

  begin(): ImportTransaction {
    return new ImportTransaction(this.#inventory, this.#uses)
  }
}

/** The chunks of one import. It ends with {@link commit} or {@link rollback}. */
export class ImportTransaction {
  readonly #inventory: Store
  readonly #uses: Map<Digest, Use>
  readonly #used = new Set<Digest>()
  readonly #pending = new Set<Promise<boolean>>()

  constructor(inventory: Store, uses: Map<Digest, Use>) {
    this.#inventory = inventory
    this.#uses = uses
  }

  /** Resolves when the chunk is kept. @throws what the store throws */
  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const use = this.#use(digest)
    const putting = this.#inventory.put(digest, bytes, 'registry')
    this.#pending.add(putting)
    try {
      if (await putting) use.isNew = true
    } finally {
      this.#pending.delete(putting)
    }
  }

  /** For a thread that writes the files of chunks. It has ended, and this was disposed of, before the transaction ends. */
  openFiles(): ChunkFiles {
    const inventory = this.#inventory
    const thread = inventory.openThreadWriting()
    return {
      writing: thread.writing,
      decide: async ({ digest, lengthBytes }) => {
        this.#use(digest)
        return (await thread.grant(digest, lengthBytes)) ? 'write' : 'drop'
      },
      adopt: (chunks) => {
        for (const digest of inventory.adoptFrom(thread, chunks, 'registry')) this.#use(digest).isNew = true
      },
      failed: async (cause) => await thread.failed(cause),
      [Symbol.asyncDispose]: async () => await thread[Symbol.asyncDispose](),
    }
  }

  #use(digest: Digest): Use {
    const use = this.#uses.get(digest) ?? { transactions: 0, isNew: false }
    if (!this.#used.has(digest)) {
      this.#used.add(digest)
      use.transactions++
      this.#uses.set(digest, use)
    }
    return use
  }

  /** Everything that has been put stays. */
  commit(): void {
    for (const [digest, use] of this.#end()) {
      use.isNew = false
      if (use.transactions === 0) this.#uses.delete(digest)
    }
  }

  /** Removes the chunks that were not here before, unless a tracked segment or another transaction has them too. */
  async rollback(): Promise<void> {
    await Promise.allSettled(this.#pending)
    const discarded: Digest[] = []
    for (const [digest, use] of this.#end()) {
      if (use.transactions > 0) continue
      this.#uses.delete(digest)
      if (use.isNew && !this.#inventory.isReferenced(digest)) discarded.push(digest)
    }
    for (const digest of discarded) await this.#inventory.discard(digest)
    if (discarded.length > 0)
      await this.#inventory.flush({ signal: AbortSignal.timeout(reclaimMs) }).catch(() => undefined)
  }

  *#end(): Generator<[Digest, Use]> {
    for (const digest of this.#used) {
      const use = this.#uses.get(digest)!
      use.transactions--
      yield [digest, use]
    }
    this.#used.clear()
  }
}
