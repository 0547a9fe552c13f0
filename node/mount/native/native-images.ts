import { constants } from 'node:fs'
import { copyFile, mkdir, open, readdir, rename, rm, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestHex, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { Log } from '../../base/log.ts'
import { tablesOf } from '../../model/rootfs-chunks.ts'
import { planDriveFilesystem } from '../../rootfs/erofs/drive-filesystem.ts'
import { splitMetadata } from '../../rootfs/erofs/split-filesystem.ts'
import type { KernelMounter } from '../placement/kernel-mounter.ts'
import { readMounts } from '../placement/mountinfo.ts'
import type { Keep, SegmentFiles } from './segment-files.ts'

export const nativeKinds = ['tree', 'drive'] as const
export type NativeKind = (typeof nativeKinds)[number]

/** Length of a block of EROFS (bytes). */
const blockBytes = 4096

export interface NativeImagesParts {
  segments: SegmentFiles
  mounter: Pick<KernelMounter, 'devices' | 'unmountFrom'>
  log: Log
}

/**
 * Whole images as the kernel reads them by itself: EROFS over the files of their segments, mounted once for each image and
 * kind. A tree's files lie in its layers' files. A drive's filesystem has one file, `rootfs.img`, which is the segments one
 * after the other. These mounts need no daemon: they go on when it is gone.
 */
export class NativeImages {
  readonly directory: string
  readonly segments: SegmentFiles
  readonly #parts: NativeImagesParts
  readonly #kinds: readonly NativeKind[]
  /** The names of the segments of each image that is ready, in order, by the image and what it can be mounted as. */
  readonly #ready = new Map<string, { kinds: ReadonlySet<NativeKind>; segments: readonly string[]; metadata: string }>()

  /**
   * @param options `directory`: without symbolic links; `kinds`: what is made: with none, mounts that stand can only
   *   end
   */
  constructor(parts: NativeImagesParts, { directory, kinds }: { directory: string; kinds: readonly NativeKind[] }) {
    this.#parts = parts
    this.segments = parts.segments
    this.directory = directory
    this.#kinds = kinds
  }

  /** The directory that an image is mounted on. */
  mountPoint(kind: NativeKind, rootfs: string): string {
    return join(this.directory, `${kind}s`, rootfs)
  }

  isReady(rootfs: string): boolean {
    return this.#ready.has(rootfs)
  }

  /** Whether anything is to be made. */
  get isOff(): boolean {
    return this.#kinds.length === 0
  }

  /** The kinds of mounts that the kernel reads by itself in this format. */
  kindsOf({ format }: Pick<RootfsManifest, 'format'>): NativeKind[] {
    return this.#kinds.filter((kind) => kind === 'drive' || format === 'erofs')
  }

  /**
   * Makes all that {@link mount} needs.
   * @param rootfs an image that is whole on this host
   * @throws unavailable where there is no room, unsupported for an image that EROFS cannot be split for; the signal's
   *   reason
   */
  async prepare(rootfs: string, manifest: RootfsManifest, keep: Keep): Promise<void> {
    const { segments } = this.#parts
    const tables = tablesOf(manifest).filter(({ sizeBytes }) => sizeBytes > 0)
    for (const table of tables) await segments.prepare(table, keep)
    const names = tables.map(({ id }) => digestHex(id))
    const kinds = this.kindsOf(manifest)
    await mkdir(join(this.directory, 'images'), { recursive: true, mode: 0o700 })
    for (const kind of kinds) {
      const file = this.#file(kind, rootfs)
      const temporary = `${file}.partial`
      await rm(temporary, { force: true })
      if (kind === 'tree') await this.#writeTree(temporary, manifest)
      else await this.#writeDrive(temporary, tables, manifest.metadata.id)
      await rename(temporary, file)
    }
    await segments.use(names)
    this.#ready.set(rootfs, { kinds: new Set(kinds), segments: names, metadata: digestHex(manifest.metadata.id) })
  }

  /**
   * Mounts an image if it is ready and not mounted yet.
   * @returns where; undefined if it cannot be read natively: its files are not ready, or are gone
   */
  async mount(kind: NativeKind, rootfs: string): Promise<string | undefined> {
    const directory = this.mountPoint(kind, rootfs)
    if ((await readMounts()).some(({ mountPoint }) => mountPoint === directory)) return directory
    const ready = this.#ready.get(rootfs)
    if (ready?.kinds.has(kind) !== true) return undefined
    const { segments, mounter, log } = this.#parts
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      // A tree's own metadata is in the file that it is mounted from.
      const devices = kind === 'drive' ? ready.segments : ready.segments.filter((name) => name !== ready.metadata)
      await mounter.devices(this.#file(kind, rootfs), devices, directory, { within: segments.directory })
      await segments.use(ready.segments)
      return directory
    } catch (error) {
      log.warn('image cannot be read natively; it is read through FUSE', { error, rootfs: `sha256:${rootfs}` })
      this.#ready.delete(rootfs)
      return undefined
    }
  }

  /** Ends the mounts of an image here that nothing is bound to. */
  async release(rootfs: string): Promise<void> {
    for (const kind of nativeKinds) await this.#release(kind, rootfs)
  }

  async #release(kind: NativeKind, rootfs: string): Promise<void> {
    const directory = this.mountPoint(kind, rootfs)
    const mounts = await readMounts()
    const own = mounts.find(({ mountPoint }) => mountPoint === directory)
    if (own !== undefined && mounts.some(({ device, id }) => device === own.device && id !== own.id)) return
    await this.#parts.mounter.unmountFrom(directory).catch(() => undefined)
    await rmdir(directory).catch(() => undefined)
  }

  /** Ends the mounts of all other images that nothing is bound to. */
  async tidy(used: ReadonlySet<string>): Promise<void> {
    for (const kind of nativeKinds)
      for (const rootfs of await readdir(join(this.directory, `${kind}s`)).catch(() => []))
        if (!used.has(rootfs)) await this.#release(kind, rootfs)
  }

  /** The images that are mounted natively. */
  async mounted(): Promise<Set<string>> {
    const parents = nativeKinds.map((kind) => join(this.directory, `${kind}s/`))
    const own = (await readMounts()).flatMap(({ mountPoint }) => {
      const parent = parents.find((prefix) => mountPoint.startsWith(prefix))
      return parent === undefined ? [] : [mountPoint.slice(parent.length)]
    })
    return new Set(own)
  }

  /** Forgets that images are ready which have lost a segment's file. @returns those */
  forgetLost(): string[] {
    const names = new Set(this.segments.names())
    const lost = [...this.#ready].flatMap(([rootfs, { segments }]) =>
      segments.every((name) => names.has(name)) ? [] : [rootfs],
    )
    for (const rootfs of lost) this.#ready.delete(rootfs)
    return lost
  }

  /** Removes the files of images that are not ready: they are made again from their segments. */
  async removeFiles(): Promise<void> {
    await rm(join(this.directory, 'images'), { recursive: true, force: true })
  }

  /** Whether this kernel can mount so: found out by a mount of one block. */
  async isSupported(): Promise<boolean> {
    const directory = join(this.directory, 'trial')
    const [file, device, on] = ['file', 'device', 'on'].map((name) => join(directory, name)) as [string, string, string]
    try {
      await mkdir(on, { recursive: true, mode: 0o700 })
      await writeFile(device, Buffer.alloc(blockBytes))
      await writeFile(file, planDriveFilesystem([blockBytes], Buffer.alloc(16)).head)
      await this.#parts.mounter.devices(file, ['device'], on, { within: directory })
      return true
    } catch (error) {
      this.#parts.log.info('whole images are read through FUSE: the kernel of this host cannot read them by itself', {
        error,
      })
      return false
    } finally {
      // A daemon that was killed at this place has left its own.
      while (await this.#parts.mounter.unmountFrom(on).catch(() => false)) continue
      await rm(directory, { recursive: true, force: true }).catch(() => undefined)
    }
  }

  #file(kind: NativeKind, rootfs: string): string {
    return join(this.directory, 'images', `${rootfs}.${kind}`)
  }

  /** The metadata segment, and the layers as its devices. */
  async #writeTree(file: string, { metadata, layers }: RootfsManifest): Promise<void> {
    await copyFile(this.segments.path(digestHex(metadata.id)), file, constants.COPYFILE_FICLONE)
    await using handle = await open(file, 'r+')
    const first = Buffer.alloc(blockBytes)
    await handle.read(first, 0, blockBytes, 0)
    const { firstBlock, end } = splitMetadata(
      first,
      metadata.sizeBytes,
      layers.map(({ chunks }) => chunks.sizeBytes),
    )
    await handle.write(firstBlock, 0, firstBlock.length, 0)
    if (end.length > 0) await handle.write(end, 0, end.length, metadata.sizeBytes)
  }

  async #writeDrive(file: string, tables: ReturnType<typeof tablesOf>, seed: Digest): Promise<void> {
    const { head, pieces } = planDriveFilesystem(
      tables.map(({ sizeBytes }) => sizeBytes),
      digestToBytes(seed).subarray(0, 16),
    )
    await using handle = await open(file, 'wx', 0o600)
    await handle.write(head, 0, head.length, 0)
    let endBytes = head.length
    for (const { offset, lengthBytes, at } of pieces) {
      const bytes = await this.#read(tables, offset, lengthBytes)
      await handle.write(bytes, 0, bytes.length, at)
      endBytes = at + bytes.length
    }
    // The kernel wants whole blocks.
    await handle.truncate(Math.ceil(endBytes / blockBytes) * blockBytes)
  }

  /** Bytes of the segments, one after the other. */
  async #read(tables: ReturnType<typeof tablesOf>, offset: number, lengthBytes: number): Promise<Buffer> {
    const out = Buffer.alloc(lengthBytes)
    let start = 0
    for (const { id, sizeBytes } of tables) {
      const from = Math.max(offset, start)
      const to = Math.min(offset + lengthBytes, start + sizeBytes)
      if (from < to) {
        await using handle = await open(this.segments.path(digestHex(id)), 'r')
        await handle.read(out, from - offset, to - from, from - start)
      }
      start += sizeBytes
    }
    return out
  }
}
