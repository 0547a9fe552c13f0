import type { Digest } from '../../protocol/digest.ts'
import { Boots } from '../boot/boots.ts'
import type { FuseDriver } from '../mount/fuse/driver.ts'
import { MountRecords } from '../mount/mount-records.ts'
import { Mounts } from '../mount/mounts.ts'
import { NativeBuilder } from '../mount/native/native-builder.ts'
import type { NativeImages } from '../mount/native/native-images.ts'
import type { Placement } from '../mount/placement/placement.ts'
import type { StoreRoom } from '../store/store-room.ts'
import type { DaemonContext } from './context.ts'
import type { DataParts } from './data.ts'

/** The mounting that this process can do, which depends on how it got its FUSE descriptor. */
export interface MountBackend {
  driver: FuseDriver
  placement: Placement
  /** Images that the kernel reads without the daemon; undefined where this process cannot mount. */
  natives: NativeImages | undefined
}

/**
 * @param options `chunkDirectory`: where the driver finds the chunks of this host; `suspect`: a chunk's file may be damaged;
 * `storeRoom`: what files may take on the disk
 */
export type OpenMountBackend = (options: {
  chunkDirectory: string
  suspect: (chunk: Digest) => Promise<void>
  storeRoom: StoreRoom
}) => MountBackend

export interface MountParts {
  driver: FuseDriver
  natives: NativeImages | undefined
  mounts: Mounts
  nativeBuilder: NativeBuilder | undefined
  noteUse: (rootfs: Digest) => void
  /** Reads a chunk whose file may be damaged: a damaged one is found out, and withdrawn. */
  suspect: (chunk: Digest) => Promise<void>
}

/** Makes what mounts images, and reads for them. Nothing is served before `mounts` is told to. */
export function openMounting(
  { config, log, paths, stack }: DaemonContext,
  {
    storage,
    registries: { callers },
    region: { network },
    holdings: { inventory },
    publications: { profiles },
    sources: { fetcher },
  }: DataParts,
  openMountBackend: OpenMountBackend,
): MountParts {
  const { catalog, storeRoom, uses } = storage
  const suspect = async (chunk: Digest): Promise<void> => {
    await inventory.get(chunk)
  }
  const { driver, placement, natives } = openMountBackend({ chunkDirectory: inventory.directory, suspect, storeRoom })
  const boots = new Boots(
    { profiles, availability: network.availability, log },
    { enabled: config.bootProfiles === 'on' },
  )
  const noteUse = (rootfs: Digest): void => uses.note(rootfs)
  const records = new MountRecords({ catalog }, { directory: paths.mounts })
  const hasCredentials = (mount: string): boolean => callers.has(mount)
  const mounts = new Mounts(
    { catalog, records, driver, placement, fetcher, inventory, boots, noteUse, hasCredentials, log },
    { readDeadlineMs: config.readDeadline * 1000 },
  )
  const nativeBuilder = natives && stack.use(new NativeBuilder({ images: natives, inventory, catalog, mounts, log }))
  return { driver, natives, mounts, nativeBuilder, noteUse, suspect }
}
