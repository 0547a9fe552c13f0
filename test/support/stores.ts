import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { silentLog } from '../../node/base/log.ts'
import { Catalog } from '../../node/store/catalog.ts'
import { ChunkStore } from '../../node/store/chunk-store.ts'
import { temporaryDirectory } from './temporary.ts'

/** The disk reserve of a disk that has room. */
export const reserve = { isFull: false, release: async (): Promise<void> => undefined }

/** A catalog that is closed with the test. */
export async function openCatalog(
  context: TestContext,
  directory = join(temporaryDirectory(context), 'catalog'),
): Promise<Catalog> {
  const catalog = await Catalog.open({ reserve, log: silentLog }, { directory })
  context.after(async () => await catalog[Symbol.asyncDispose]())
  return catalog
}

export async function openChunkStore(directory: string): Promise<ChunkStore> {
  return await ChunkStore.open({ reserve, log: silentLog }, { directory })
}
