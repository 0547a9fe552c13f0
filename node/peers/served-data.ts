import type { BootProfile, ProfileSubject } from '../../protocol/boot-profile.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { ImportRequest } from '../../protocol/messages/import.ts'
import type { RegistryWord } from '../../protocol/messages/registry-word.ts'
import type { Urgency } from '../base/urgency.ts'
import type { PlaceRequest, ToldMount } from '../../protocol/messages/seed.ts'
import type { SeedJob, SeedProgress } from '../../protocol/seed-job.ts'
import type { ByteProgress } from '../model/progress.ts'

/**
 * The data that this host serves to its peers. Each member is named by what it returns; undefined where that is not
 * here.
 */
export interface ServedData {
  /** The chunk, verified. */
  chunk: (digest: Digest, options: { signal: AbortSignal }) => Promise<Uint8Array | undefined>
  /**
   * The chunk, verified, which this host gets from the registry, or from the member that it was sent to, where it does not
   * hold it; undefined for one of no segment that this host tracks.
   * @param options `depth`: how deep the asker is in the tree of relays; throws busy where this host is not above it
   */
  relayedChunk: (
    digest: Digest,
    options: { signal: AbortSignal; urgency: Urgency; depth: number },
  ) => Promise<Uint8Array | undefined>
  /** Ids of other members that hold the chunk, as far as this host knows. */
  holders: (digest: Digest) => readonly string[]
  imageRecord: (name: ImageName) => Promise<ImageRecord | undefined>
  /** The rootfs manifest, encoded. */
  rootfsManifest: (rootfsDigest: Digest) => Promise<Uint8Array | undefined>
  /** The layer index, encoded. */
  layerIndex: (diffId: Digest) => Promise<Uint8Array | undefined>
  /** The blob map, encoded and compressed with zstd. */
  blobMap: (digest: Digest) => Promise<Uint8Array | undefined>
  /** The bytes that this host has read from a registry lately, or reads now, by digest or key; undefined where it does neither. */
  sharedBlob: (key: Digest) => Promise<Uint8Array> | undefined
  /** The boot profile of that rootfs, or of the one that is most like it. */
  bootProfile: (subject: ProfileSubject) => Promise<BootProfile | undefined>
  /** Whether this host is importing the image with this manifest. */
  isImporting: (manifestDigest: Digest) => boolean
  /** This host's latest experience with the registry that has this key (`registryKey`). */
  registryWord: (key: Digest) => RegistryWord | undefined
  /**
   * The record of an image, which this host imports for a peer.
   * @throws busy, invalid for a malformed image: the peer is told these; for whatever else it is told denied
   */
  importedImage: (
    request: ImportRequest,
    options: ImportEvents & { signal: AbortSignal; peer: string },
  ) => Promise<ImageRecord>
  seeds: ServedSeeds
}

/** Serves the seeds of the region. Peers are told busy, denied, missing and conflict; unavailable for all other failures. */
export interface ServedSeeds {
  /** Makes an image whole here and pins it. @returns what is here when all of it is */
  placed: (
    request: PlaceRequest,
    options: { peer: string; signal: AbortSignal; onProgress: (progress: SeedProgress) => void },
  ) => Promise<SeedProgress>
  /** Keeps the record of a job that a peer sends. @returns the newest record of it */
  keptJob: (job: SeedJob, peer: string) => Promise<SeedJob>
  /** Ends the pins of a job that a peer has asked for. */
  released: (job: string, peer: string) => Promise<void>
  /** Counts what a peer has mounted. `source`: where it connects from. */
  mounted: (images: readonly ToldMount[], source: string) => void
  /** The jobs that this host keeps. */
  jobs: () => SeedJob[]
}

/** Called while an import runs. */
export interface ImportEvents {
  onProgress: (progress: ByteProgress) => void
  /** A layer has been read, and its index can be taken from the host that imports it. */
  onLayer: (diffId: Digest) => void
}
