import { join } from 'node:path'
import { digestHex, type Digest } from '../protocol/digest.ts'
import { P2pfsError } from '../protocol/errors.ts'
import type { RootfsManifest } from '../protocol/rootfs-manifest.ts'
import type { Log } from './log.ts'
import type { FuseDriver } from './mount/fuse-driver.ts'
import { MountedImage, type MountedImageParts } from './mounted-image.ts'
import type { Catalog, MountRecord } from './store/catalog.ts'

/** How a rootfs gets from the FUSE mount to the directory that the user names. */
export interface Placement {
  /** Directories that something of ours stands on. */
  standing: () => Promise<Set<string>>
  /** @throws missing where there is no such directory; conflict where it is taken */
  place: (source: string, directory: string, options: { signal: AbortSignal }) => Promise<void>
  /** @throws conflict where it is in use */
  remove: (directory: string) => Promise<void>
}

export interface MountsParts extends MountedImageParts {
  catalog: Pick<Catalog, 'mounts' | 'putMount' | 'deleteMount' | 'rootfs'>
  driver: FuseDriver
  placement: Placement
  log: Log
}

/** What is mounted where. The catalog remembers it, for the daemon that comes after this one. */
export class Mounts {
  readonly #parts: MountsParts
  readonly #mountPoint: string
  readonly #images = new Map<string, MountedImage>()
  readonly #records = new Map<string, MountRecord>()
  /** Mounts and unmounts change the same few things: one at a time. */
  #queue: Promise<unknown> = Promise.resolve()

  constructor(parts: MountsParts, { mountPoint }: { mountPoint: string }) {
    this.#parts = parts
    this.#mountPoint = mountPoint
  }

  /** Takes up the mounts of the daemon before this one; forgets those that are gone. Called before reads are served. */
  async restore(): Promise<void> {
    const { catalog, placement, log } = this.#parts
    const standing = await placement.standing()
    for (const record of await catalog.mounts()) {
      const manifest = await catalog.rootfs(record.rootfsDigest)
      if (!standing.has(record.directory) || manifest === undefined) {
        log.warn('mount is gone since the daemon was last here', { directory: record.directory, image: record.reference })
        await catalog.deleteMount(record.directory)
        continue
      }
      this.#records.set(record.directory, record)
      await this.#open(manifest, record.rootfsDigest)
    }
  }

  list(): MountRecord[] {
    return [...this.#records.values()]
  }

  /** The image of this name in the FUSE mount. */
  image(name: string): MountedImage | undefined {
    return this.#images.get(name)
  }

  /** @throws conflict where the directory is taken; missing where it is not there */
  async mount(manifest: RootfsManifest, record: MountRecord, { signal }: { signal: AbortSignal }): Promise<void> {
    await this.#oneAtATime(async () => {
      const { catalog, placement } = this.#parts
      const { directory, rootfsDigest } = record
      if (this.#records.has(directory)) {
        throw new P2pfsError('conflict', `${directory} is a mount already; umount it first`, { directory })
      }
      signal.throwIfAborted()
      const { image } = await this.#open(manifest, rootfsDigest)
      // Recorded first: a daemon that dies in between finds a record without a mount, which it forgets.
      await catalog.putMount(record)
      try {
        await placement.place(join(this.#mountPoint, image.name), directory, { signal })
      } catch (error) {
        await catalog.deleteMount(directory)
        await this.#closeUnused(rootfsDigest)
        throw error
      }
      this.#records.set(directory, record)
    })
  }

  /** @throws missing where nothing is mounted there; conflict where it is in use */
  async umount(directory: string): Promise<void> {
    await this.#oneAtATime(async () => {
      const record = this.#records.get(directory)
      if (record === undefined) {
        throw new P2pfsError('missing', `nothing of p2pfs is mounted on ${directory}; p2pfs status lists the mounts`, { directory })
      }
      await this.#parts.placement.remove(directory)
      await this.#parts.catalog.deleteMount(directory)
      this.#records.delete(directory)
      await this.#closeUnused(record.rootfsDigest)
    })
  }

  /** Stops fetching for mounts; they stay. */
  close(): void {
    for (const mounted of this.#images.values()) mounted.close()
  }

  async #open(manifest: RootfsManifest, digest: Digest): Promise<MountedImage> {
    const name = digestHex(digest)
    let mounted = this.#images.get(name)
    if (mounted === undefined) {
      mounted = new MountedImage(this.#parts, manifest, digest)
      this.#images.set(name, mounted)
      await this.#parts.driver.add(mounted.image)
    }
    return mounted
  }

  async #closeUnused(digest: Digest): Promise<void> {
    if (this.list().some((record) => record.rootfsDigest === digest)) return
    const name = digestHex(digest)
    this.#images.get(name)?.close()
    this.#images.delete(name)
    await this.#parts.driver.remove(name)
  }

  async #oneAtATime(task: () => Promise<void>): Promise<void> {
    const turn = this.#queue.then(task)
    this.#queue = turn.catch(() => undefined)
    await turn
  }
}
