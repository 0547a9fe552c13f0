import { parseKeepFree } from '../base/keep-free.ts'
import { ImageUses } from '../disk/image-uses.ts'
import { Catalog } from '../store/catalog.ts'
import { ChunkStore } from '../store/chunk-store.ts'
import { DiskReserve } from '../store/disk-reserve.ts'
import { roomOf } from '../store/disk-room.ts'
import { StoreRoom } from '../store/store-room.ts'
import { UseScores } from '../store/use-scores.ts'
import type { DaemonContext } from './context.ts'

export interface StorageParts {
  reserve: DiskReserve
  catalog: Catalog
  storeRoom: StoreRoom
  useScores: UseScores
  chunks: ChunkStore
  uses: ImageUses
}

/**
 * Opens the state of this host on its disk: the catalog, the chunks, and the room that they may take.
 * @throws conflict where another daemon has it open; unavailable where the disk refuses
 */
export async function openStorage({ config, log, paths, stack }: DaemonContext): Promise<StorageParts> {
  const reserve = stack.use(await DiskReserve.open({ log }, { path: paths.reserve }))
  const catalogPlaces = { directory: paths.catalog, memoryDirectory: paths.catalogInMemory }
  const catalog = stack.use(await Catalog.open({ reserve, log }, catalogPlaces))
  const storeRoom = stack.use(
    new StoreRoom(
      { disk: async () => await roomOf(paths.chunks), log },
      {
        ...(config.storeLimit > 0 && { limitBytes: config.storeLimit }),
        keepFree: parseKeepFree(config.storeKeepFree),
      },
    ),
  )
  const useScores = new UseScores({ capacityBytes: () => storeRoom.limitBytes })
  const storeParts = { reserve, room: storeRoom, uses: useScores, log }
  const chunks = stack.use(await ChunkStore.open(storeParts, { directory: paths.chunks }))
  await storeRoom.start()
  const uses = new ImageUses({ catalog, log })
  await uses.open()
  return { reserve, catalog, storeRoom, useScores, chunks, uses }
}
