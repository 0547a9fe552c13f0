import { isP2pfsError } from '../../protocol/errors.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { isDiskFull } from '../base/disk-full.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImportTransactions } from '../store/import-transaction.ts'
import type { LayerSink } from './layer-reader.ts'
import type { Inventory } from '../store/inventory.ts'

export interface LayerTransactionsParts {
  catalog: Pick<Catalog, 'deleteLayer'>
  /** Takes the chunks. */
  transactions: Pick<ImportTransactions, 'begin'>
  inventory: Pick<Inventory, 'untrack'>
}

/** Runs imports so that one that can never succeed, or fills the disk, leaves neither chunks nor layer indexes behind. */
export class LayerTransactions {
  readonly #parts: LayerTransactionsParts

  constructor(parts: LayerTransactionsParts) {
    this.#parts = parts
  }

  /**
   * Runs the task with a sink for what it reads. All of that stays, unless the task fails with `invalid` or `unsupported`,
   * or because the disk is full.
   * @throws what the task throws
   */
  async run<T>(task: (sink: LayerSink) => Promise<T>): Promise<T> {
    const { catalog, transactions, inventory } = this.#parts
    const transaction = transactions.begin()
    const written: LayerIndex[] = []
    try {
      const result = await task({
        put: async (digest, bytes) => await transaction.put(digest, bytes),
        openFiles: () => transaction.openFiles(),
        onIndex: (index) => void written.push(index),
      })
      transaction.commit()
      return result
    } catch (error) {
      if (isP2pfsError(error, 'invalid', 'unsupported') || isDiskFull(error)) {
        for (const { chunks } of written) inventory.untrack(chunks.id)
        await transaction.rollback()
        for (const { diffId } of written) await catalog.deleteLayer(diffId)
      } else transaction.commit()
      throw error
    }
  }
}
