import { setTimeout as sleep } from 'node:timers/promises'
import { digestHex, parseDigest, type Digest } from '../../../protocol/digest.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { Log } from '../../base/log.ts'
import { tablesOf } from '../../model/rootfs-chunks.ts'
import type { Catalog } from '../../store/catalog.ts'
import type { Inventory } from '../../store/inventory.ts'
import type { NativeImages } from './native-images.ts'

/** How often it looks for an image that has become whole (ms). */
const lookMs = 5_000
/** An image that could not be made ready is tried again after this (ms), or when it is mounted. */
const retryMs = 10 * 60_000
/** How fast files that are ready are read and hashed again (bytes a second), as the scrubber of chunks does. */
const scrubBytesPerSecond = 4 * 1024 * 1024
/** The pause between two such files (ms). */
const scrubPauseMs = 10 * 60_000

export interface NativeBuilderParts {
  images: NativeImages
  inventory: Pick<Inventory, 'isWhole'>
  catalog: Pick<Catalog, 'images' | 'rootfs' | 'rootfsDigests'>
  /** The mounts of this host. */
  mounts: { list: () => { rootfsDigest: Digest }[] }
  log: Log
}

/**
 * Makes images ready to be read natively, one after the other, in the background, as soon as all their chunks are here:
 * those that are mounted first. A mount takes what is ready and waits for nothing.
 */
export class NativeBuilder implements AsyncDisposable {
  readonly #parts: NativeBuilderParts
  readonly #stopping = new AbortController()
  /** Images that need not be looked at, and until when (ms): they could not be made ready, or made room for others. */
  readonly #later = new Map<string, { untilMs: number; wasMounted: boolean }>()
  /** Manifests of images that are not ready. */
  readonly #manifests = new Map<Digest, RootfsManifest>()
  #running: Promise<unknown> = Promise.resolve()

  constructor(parts: NativeBuilderParts) {
    this.#parts = parts
  }

  start(): void {
    this.#running = this.#run().catch((error: unknown) => {
      if (!this.#stopping.signal.aborted)
        this.#parts.log.error('images are no longer made ready for native reads', { error })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  /** Removes the file that was used the longest time ago and that no mount needs. @returns whether there was one */
  async removeUnused(): Promise<boolean> {
    const { segments } = this.#parts.images
    const used = await this.#mountedSegments()
    const oldest = segments.names().findLast((name) => !used.has(name))
    if (oldest === undefined) return false
    await segments.remove(oldest)
    return true
  }

  async #run(): Promise<void> {
    const { images, catalog } = this.#parts
    await images.removeFiles()
    if (images.isOff) return await images.segments.open(new Set())
    const known = new Set<string>()
    for (const digest of await catalog.rootfsDigests()) {
      const manifest = await catalog.rootfs(digest)
      for (const { id } of manifest === undefined ? [] : tablesOf(manifest)) known.add(digestHex(id))
    }
    await images.segments.open(known)
    if (!(await images.isSupported())) return
    await Promise.all([this.#build(), this.#scrub()])
  }

  async #build(): Promise<void> {
    const { signal } = this.#stopping
    for (;;) {
      while (await this.#buildNext()) signal.throwIfAborted()
      await sleep(lookMs, undefined, { signal, ref: false })
    }
  }

  /** Makes an image ready that can be. @returns whether there was one */
  async #buildNext(): Promise<boolean> {
    const { images, catalog, inventory, mounts, log } = this.#parts
    const { signal } = this.#stopping
    for (const rootfs of images.forgetLost()) this.#putOff(rootfs, { wasMounted: false })
    const mounted = new Set(mounts.list().map(({ rootfsDigest }) => rootfsDigest))
    const all = [...mounted, ...(await catalog.images()).map(({ rootfsDigest }) => rootfsDigest)]
    for (const digest of new Set(all)) {
      const rootfs = digestHex(digest)
      const isMounted = mounted.has(digest)
      if (images.isReady(rootfs) || this.#isPutOff(rootfs, isMounted)) continue
      const manifest = this.#manifests.get(digest) ?? (await catalog.rootfs(digest))
      if (manifest === undefined) continue
      this.#manifests.set(digest, manifest)
      if (images.kindsOf(manifest).length === 0 || !inventory.isWhole(manifest)) continue
      this.#manifests.delete(digest)
      try {
        const names = await this.#keep(manifest)
        await images.prepare(rootfs, manifest, { names, mayRemoveOthers: isMounted, signal })
        log.info('image is ready for native reads', { rootfs: digest })
      } catch (error) {
        signal.throwIfAborted()
        this.#putOff(rootfs, { wasMounted: isMounted })
        log.info('image cannot be made ready for native reads; it is read through FUSE', { error, rootfs: digest })
      }
      return true
    }
    return false
  }

  /** The segments of an image, and of those that are mounted natively. */
  async #keep(manifest: RootfsManifest): Promise<Set<string>> {
    const names = await this.#mountedSegments()
    for (const { id } of tablesOf(manifest)) names.add(digestHex(id))
    return names
  }

  async #mountedSegments(): Promise<Set<string>> {
    const names = new Set<string>()
    for (const rootfs of await this.#parts.images.mounted()) {
      const other = await this.#parts.catalog.rootfs(parseDigest(`sha256:${rootfs}`))
      for (const { id } of other === undefined ? [] : tablesOf(other)) names.add(digestHex(id))
    }
    return names
  }

  #putOff(rootfs: string, { wasMounted }: { wasMounted: boolean }): void {
    this.#later.set(rootfs, { untilMs: performance.now() + retryMs, wasMounted })
  }

  /** One that is mounted may take the room of others, so it is tried again as soon as it is. */
  #isPutOff(rootfs: string, isMounted: boolean): boolean {
    const later = this.#later.get(rootfs)
    if (later === undefined) return false
    return performance.now() < later.untilMs && (later.wasMounted || !isMounted)
  }

  /** Hashes one file after the other, again and again. */
  async #scrub(): Promise<void> {
    const { images, catalog } = this.#parts
    const { signal } = this.#stopping
    const options = { signal, ref: false }
    for (;;) {
      await sleep(scrubPauseMs, undefined, options)
      for (const digest of await catalog.rootfsDigests()) {
        const manifest = await catalog.rootfs(digest)
        for (const table of manifest === undefined ? [] : tablesOf(manifest)) {
          if (!(await images.segments.isReady(table))) continue
          await images.segments.check(table, { signal, bytesPerSecond: scrubBytesPerSecond })
          await sleep(scrubPauseMs, undefined, options)
        }
      }
    }
  }
}
