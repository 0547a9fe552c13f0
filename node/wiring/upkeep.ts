import { Eviction } from '../disk/eviction.ts'
import { primeScores } from '../disk/prime-scores.ts'
import { Sweep } from '../disk/sweep.ts'
import type { DaemonContext } from './context.ts'
import type { HoldingsParts } from './holdings.ts'
import type { MountParts } from './mounting.ts'
import type { RegionWorkParts } from './region-work.ts'
import type { StorageParts } from './storage.ts'

export interface UpkeepParts {
  eviction: Eviction
  sweep: Sweep
}

interface Below {
  storage: StorageParts
  holdings: HoldingsParts
  mounting: MountParts
  work: RegionWorkParts
}

/** Makes what removes chunks and records: those beyond the limit of the store, and those that no image needs. */
export function openUpkeep(
  { log, stack }: DaemonContext,
  { storage, holdings: { inventory }, mounting: { mounts, nativeBuilder }, work: { pins, keptChunks } }: Below,
): UpkeepParts {
  const { catalog, chunks, storeRoom, uses, useScores } = storage
  const eviction = stack.use(
    new Eviction({
      chunks,
      inventory,
      room: storeRoom,
      uses: useScores,
      kept: keptChunks,
      reads: mounts,
      prime: async () => await primeScores({ uses, catalog, chunks }),
      ...(nativeBuilder && { removeCopy: async () => await nativeBuilder.removeUnused() }),
      log,
    }),
  )
  const sweep = new Sweep({ catalog, chunks, inventory, mounts, pins, kept: keptChunks, uses })
  return { eviction, sweep }
}
