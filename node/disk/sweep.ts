import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { Amount } from '../model/progress.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { Pins } from '../seeds/pins.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import type { Inventory } from '../store/inventory.ts'
import type { ImageUses } from './image-uses.ts'
import type { KeptChunks } from './kept-chunks.ts'

export interface SweepParts {
  catalog: Pick<
    Catalog,
    | 'images'
    | 'rootfs'
    | 'rootfsDigests'
    | 'rootfsParts'
    | 'deleteRootfs'
    | 'layerDiffIds'
    | 'deleteLayer'
    | 'blobMapDigests'
    | 'blobMap'
    | 'deleteBlobMap'
  >
  chunks: Pick<ChunkStore, 'bytesOf'>
  inventory: Pick<Inventory, 'digests' | 'has' | 'isReferenced' | 'tablesWith' | 'drop' | 'discard'>
  mounts: Pick<Mounts, 'list' | 'rootfs' | 'whileUnused'>
  pins: Pick<Pins, 'list'>
  kept: Pick<KeptChunks, 'isHeld' | 'isImporting'>
  uses: Pick<ImageUses, 'forget'>
}

export interface SweepOptions {
  isDry?: boolean
  only?: ReadonlySet<Digest> | undefined
  signal: AbortSignal
}

/** The segments and layers of the rootfs that stay. */
type AllRootfs = Map<Digest, { tables: Digest[]; diffIds: Digest[] }>
/** Segments that nobody has any more, by their ids. */
type GoneTables = Map<Digest, ChunkTable>

/** The data that no image needs any more. */
export interface Swept {
  /** Rootfs that no name stands for. */
  rootfs: number
  layers: number
  chunks: Amount
}

/**
 * Removes data that no image of this host needs: rootfs that no name stands for any more, layers of none, and chunks of
 * neither. Data that is mounted, read, pinned, or being seeded or imported stays.
 */
export class Sweep {
  readonly #parts: SweepParts

  constructor(parts: SweepParts) {
    this.#parts = parts
  }

  /** @param options `isDry`: only looks; `only`: of these rootfs, and not what others have left */
  async run({ isDry = false, only, signal }: SweepOptions): Promise<Swept> {
    const { catalog, kept } = this.#parts
    const records = await catalog.images()
    const all: AllRootfs = new Map()
    for (const digest of await catalog.rootfsDigests()) {
      const parts = await catalog.rootfsParts(digest)
      if (parts !== undefined) all.set(digest, parts)
    }
    const gone: GoneTables = new Map()
    let rootfs = 0
    for (const digest of this.#deadRootfs(records, all)) {
      signal.throwIfAborted()
      if (only?.has(digest) === false) continue
      const tables = await this.#removeRootfs(digest, all, isDry)
      for (const table of tables ?? []) gone.set(table.id, table)
      if (tables !== undefined) rootfs++
    }
    // Layers that an import has made may have no rootfs yet.
    const layers = kept.isImporting ? 0 : await this.#removeLayers(records, all, gone, isDry)
    return { rootfs, layers, chunks: await this.#removeChunks(gone, { isDry, only, signal }) }
  }

  #deadRootfs(records: readonly ImageRecord[], all: AllRootfs): Digest[] {
    const { mounts, pins } = this.#parts
    const live = new Set<Digest>()
    for (const { rootfsDigest } of [...records, ...mounts.list(), ...pins.list()]) live.add(rootfsDigest)
    return [...all.keys()].filter((digest) => !live.has(digest) && mounts.rootfs(digest) === undefined)
  }

  /** @returns the segments that no other rootfs has, which are tracked no more; undefined where it is in use after all */
  async #removeRootfs(digest: Digest, all: AllRootfs, isDry: boolean): Promise<ChunkTable[] | undefined> {
    const { catalog, inventory, mounts, uses, kept } = this.#parts
    const own = all.get(digest)!
    if (own.tables.some((table) => kept.isHeld(table))) return undefined
    const manifest = await catalog.rootfs(digest)
    all.delete(digest)
    const others = new Set([...all.values()].flatMap(({ tables }) => tables))
    const tables = manifest === undefined ? [] : tablesOf(manifest).filter(({ id }) => !others.has(id))
    if (isDry) return tables
    try {
      await mounts.whileUnused(digest, async () => {
        await catalog.deleteRootfs(digest, { tables: tables.map(({ id }) => id) })
        for (const { id } of tables) inventory.drop(id)
        uses.forget(digest)
      })
      return tables
    } catch (error) {
      if (!isP2pfsError(error, 'conflict')) throw error
      all.set(digest, own)
      return undefined
    }
  }

  async #removeLayers(
    records: readonly ImageRecord[],
    all: AllRootfs,
    gone: GoneTables,
    isDry: boolean,
  ): Promise<number> {
    const { catalog, inventory } = this.#parts
    const diffIds = new Set([...all.values()].flatMap((parts) => parts.diffIds))
    const blobs = new Set(records.flatMap(({ manifest }) => blobsOf(manifest)))
    let layers = 0
    for (const diffId of await catalog.layerDiffIds()) {
      if (diffIds.has(diffId)) continue
      layers++
      if (!isDry) await catalog.deleteLayer(diffId)
    }
    for (const digest of await catalog.blobMapDigests()) {
      if (blobs.has(digest)) continue
      const windows = (await catalog.blobMap(digest))?.windows
      if (windows !== undefined) {
        gone.set(windows.id, windows)
        if (!isDry) inventory.drop(windows.id)
      }
      if (!isDry) await catalog.deleteBlobMap(digest)
    }
    return layers
  }

  /** Chunks that only segments which are gone have, and, where nothing is imported, those of none. */
  async #removeChunks(
    gone: GoneTables,
    { isDry, only, signal }: Pick<SweepOptions, 'only' | 'signal'> & { isDry: boolean },
  ): Promise<Amount> {
    const { inventory, chunks, kept } = this.#parts
    const amount = { bytes: 0, chunks: 0 }
    const unneeded: Digest[] = []
    const candidates = only === undefined ? inventory.digests() : digestsOf(gone.values())
    for (const digest of candidates)
      if (inventory.tablesWith(digest).every((table) => gone.has(table))) unneeded.push(digest)
    for (const digest of new Set(unneeded)) {
      signal.throwIfAborted()
      if (kept.isImporting || !inventory.has(digest) || (!isDry && inventory.isReferenced(digest))) continue
      amount.bytes += chunks.bytesOf(digest)
      amount.chunks++
      if (!isDry) await inventory.discard(digest)
    }
    return amount
  }
}

function* digestsOf(tables: Iterable<ChunkTable>): Generator<Digest> {
  for (const table of tables) for (let i = 0; i < table.count; i++) yield table.digestAt(i)
}

/** Digests of the layers' blobs, as the image manifest names them. */
function blobsOf(manifest: string): Digest[] {
  const { layers = [] } = JSON.parse(manifest) as { layers?: { digest?: Digest }[] }
  return layers.flatMap(({ digest }) => digest ?? [])
}
