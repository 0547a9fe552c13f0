import type { ChunkFiles } from '../peers/bulk/chunk-files.ts'
import type { ServedData } from '../peers/served-data.ts'
import type { DataParts } from './data.ts'
import type { HoldingsParts } from './holdings.ts'
import type { ImageParts } from './images.ts'
import type { MountParts } from './mounting.ts'
import type { RegionWorkParts } from './region-work.ts'
import type { StorageParts } from './storage.ts'

interface Below extends DataParts {
  images: ImageParts
  work: RegionWorkParts
}

/** Makes what peers are served. */
export function makeServedData({
  storage,
  registries,
  region,
  holdings,
  publications,
  sources,
  images,
  work,
}: Below): ServedData {
  const { catalog } = storage
  const { availability } = region.network
  const { inventory } = holdings
  const { profiles } = publications
  const { relays } = sources
  const { imports, resolver } = images
  const { peerImports, placements, jobs, pins, hot, kept } = work
  return {
    chunk: async (digest) => await inventory.get(digest),
    relayedChunk: async (digest, options) => await relays.chunk(digest, options),
    holders: (digest) => {
      const request = inventory.requestOf(digest)
      return request === undefined ? [] : availability.holders(request.table, request.index)
    },
    imageRecord: async (name) => await catalog.image(name),
    rootfsManifest: async (digest) => await catalog.rootfsBytes(digest),
    layerIndex: async (diffId) => await catalog.layerBytes(diffId),
    sharedBlob: (digest) => registries.sharing.find(digest),
    blobMap: async (digest) => await catalog.blobMapBytes(digest),
    bootProfile: async (subject) => await profiles.nearest(subject),
    isImporting: (manifestDigest) => imports.has(manifestDigest),
    registryWord: (key) => resolver.registryWord(key),
    importedImage: async (request, options) => await peerImports.importFor(request, options),
    seeds: {
      placed: async (request, options) => await placements.place(request, options),
      keptJob: async (job, peer) => await jobs.keptJob(job, peer),
      released: async (job, peer) => await pins.release(job, peer),
      mounted: (images, source) => hot.told(images, source),
      jobs: () => kept.list(),
    },
  }
}

/** Makes what the threads of bulk connections read and write. */
export function makeChunkFiles(
  { chunks }: StorageParts,
  { inventory }: HoldingsParts,
  { suspect }: MountParts,
): ChunkFiles {
  return {
    writing: inventory.writing,
    get isFull() {
      return chunks.isFull
    },
    adopt: async (chunks) => await inventory.adopt(chunks, 'peer'),
    failed: (error) => void chunks.failedToWrite(error),
    suspect: (digest) => void suspect(digest).catch(() => undefined),
  }
}
