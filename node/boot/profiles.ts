import { setTimeout as sleep } from 'node:timers/promises'
import { kinshipOf, parseBootProfile, type BootProfile, type ProfileSubject } from '../../protocol/boot-profile.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestBytes, digestToBytes, type Digest } from '../../protocol/digest.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import type { Log } from '../base/log.ts'
import type { ProfileSource } from '../model/boot-replay.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { Catalog } from '../store/catalog.ts'

/**
 * After a profile of the very rootfs has come, others are waited for this long (ms): one of them may be of a longer
 * boot.
 */
const graceMs = 100

/** Published profiles that are kept in memory until their image is mounted; the oldest is dropped. */
const maxPublished = 64

export interface FoundProfile {
  profile: BootProfile
  source: ProfileSource
}

export interface BootProfilesParts {
  catalog: Pick<Catalog, 'profile' | 'profiles' | 'putProfile'>
  region: Pick<RegionObjects, 'askProfiles'>
  log: Log
}

/**
 * Keeps the boot profiles that this host has recorded, one for each rootfs that was mounted here, and finds the best one
 * for a mount. The longer of two recorded profiles of a rootfs stays: a boot that found pages in the kernel's cache, or
 * that broke off, looks like a shorter one. This host gives peers only the profiles that it has
 * recorded itself, so that a wrong one does not spread.
 */
export class BootProfiles {
  readonly #parts: BootProfilesParts
  /** The sketch of each rootfs with a recorded profile: a relative is found without reading the profiles. */
  readonly #sketches = new Map<Digest, readonly number[]>()
  /** Profiles that registries have, by rootfs. */
  readonly #published = new BoundedMap<Digest, BootProfile>({ maxEntries: maxPublished })

  constructor(parts: BootProfilesParts) {
    this.#parts = parts
  }

  /** Reads the sketches of the profiles in the catalog. */
  async open(): Promise<void> {
    for await (const { rootfs, sketch } of this.#parts.catalog.profiles()) this.#sketches.set(rootfs, sketch)
  }

  /** Keeps a profile that was recorded here. */
  async keep(profile: BootProfile): Promise<void> {
    const recorded = await this.#parts.catalog.profile(profile.rootfs)
    if (recorded !== undefined && recorded.chunks.length >= profile.chunks.length) return
    await this.#parts.catalog.putProfile(profile)
    this.#sketches.set(profile.rootfs, profile.sketch)
  }

  /** Takes a profile that is published with an image. The bytes are untrusted. */
  addPublished(bytes: Uint8Array): void {
    try {
      const profile = parseBootProfile(bytes)
      this.#published.set(profile.rootfs, profile)
    } catch (error) {
      this.#parts.log.debug('published boot profile is malformed', { error })
    }
  }

  /**
   * The recorded profile of this rootfs, or of the one that has most chunks in common with it; undefined if none has
   * any.
   */
  async nearest(subject: ProfileSubject): Promise<BootProfile | undefined> {
    const own = await this.#parts.catalog.profile(subject.rootfs)
    if (own !== undefined) return own
    let best: { rootfs: Digest; kinship: number } | undefined
    for (const [rootfs, sketch] of this.#sketches) {
      const kinship = kinshipOf({ rootfs, sketch }, subject)
      if (kinship > (best?.kinship ?? 0)) best = { rootfs, kinship }
    }
    return best === undefined ? undefined : await this.#parts.catalog.profile(best.rootfs)
  }

  /**
   * The profile of this rootfs, or else of a relative: from this host, its region, or the registry. Profiles of others
   * are not kept.
   * @param tables the chunk tables of its layers: members that hold chunks of them are asked first
   */
  async find(
    subject: ProfileSubject,
    tables: readonly Digest[],
    { signal }: { signal: AbortSignal },
  ): Promise<FoundProfile | undefined> {
    const own = await this.nearest(subject)
    if (own?.rootfs === subject.rootfs) return { profile: own, source: 'local' }
    const relatives = (
      source: ProfileSource,
      profiles: Iterable<BootProfile>,
    ): (FoundProfile & { kinship: number })[] =>
      [...profiles]
        .map((profile) => ({ profile, source, kinship: kinshipOf(profile, subject) }))
        .filter(({ kinship }) => kinship > 0)
    const candidates = [
      ...relatives('local', own === undefined ? [] : [own]),
      ...relatives('peer', await this.#ask(subject, tables, signal)),
      ...relatives('registry', this.#published.values()),
    ]
    // Compared before they are subtracted: the kinship of the rootfs with itself is Infinity.
    return candidates.toSorted((first, second) =>
      first.kinship === second.kinship
        ? second.profile.chunks.length - first.profile.chunks.length
        : second.kinship - first.kinship,
    )[0]
  }

  async #ask(subject: ProfileSubject, tables: readonly Digest[], signal: AbortSignal): Promise<BootProfile[]> {
    const answers: BootProfile[] = []
    const found = Promise.withResolvers<void>()
    const asked = this.#parts.region.askProfiles(subject, tables, { signal }).map(async (asking) => {
      const answer = await asking
      if (answer === undefined) return
      answers.push(answer)
      if (answer.rootfs === subject.rootfs) found.resolve()
    })
    await Promise.race([Promise.all(asked), found.promise.then(async () => await sleep(graceMs))])
    return [...answers]
  }
}

/** Chunks are looked up by the first bytes of their digests: 48 bits, which hardly two chunks of an image share. */
const keyBytes = 6

/** Positions in the image of the chunks of a profile, in the profile's order: those that the image has, each once. */
export function profileChunks(digests: readonly Digest[], tables: readonly ChunkTable[]): number[] {
  const ranks = new Map<number, { raw: Uint8Array; rank: number }>()
  for (const [rank, digest] of digests.entries()) {
    const raw = Buffer.from(digestToBytes(digest))
    const key = raw.readUIntBE(0, keyBytes)
    if (!ranks.has(key)) ranks.set(key, { raw, rank })
  }
  const found = Array.from<number | undefined>({ length: digests.length })
  let first = 0
  for (const table of tables) {
    const all = Buffer.from(table.digests.buffer, table.digests.byteOffset, table.digests.byteLength)
    for (let i = 0; i < table.count; i++) {
      const wanted = ranks.get(all.readUIntBE(i * digestBytes, keyBytes))
      if (wanted !== undefined && all.subarray(i * digestBytes, (i + 1) * digestBytes).equals(wanted.raw))
        found[wanted.rank] ??= first + i
    }
    first += table.count
  }
  return found.filter((chunk) => chunk !== undefined)
}
