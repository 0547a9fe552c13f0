import { setTimeout as sleep } from 'node:timers/promises'
import { kinshipOf, parseBootProfile, type BootProfile, type ProfileSubject } from '../../protocol/boot-profile.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestBytes, digestToBytes, type Digest } from '../../protocol/digest.ts'
import type { Log } from '../base/log.ts'
import type { Catalog } from '../store/catalog.ts'

/** Once a profile of the very rootfs has come, others may still come for this long, milliseconds: of another boot, a longer one. */
const graceMs = 100

/** Published profiles that are remembered until their image is mounted; the oldest is forgotten. */
const maxPublished = 64

export type ProfileSource = 'local' | 'peer' | 'registry'

export interface BootProfilesParts {
  catalog: Pick<Catalog, 'profile' | 'profiles' | 'putProfile'>
  region: {
    askProfiles: (
      subject: ProfileSubject,
      tables: readonly Digest[],
      options: { signal: AbortSignal },
    ) => Promise<BootProfile | undefined>[]
  }
  log: Log
}

/**
 * The boot profiles that this host has recorded, one for each rootfs that was mounted here, and finding the best one for a mount. Of
 * two, the one with more chunks stays: a boot that found pages in the kernel's cache, or broke off, looks like a shorter one.
 * What it tells others it has seen itself, so that a wrong one does not spread.
 */
export class BootProfiles {
  readonly #parts: BootProfilesParts
  /** What there are profiles of: to find a relative without reading them. */
  readonly #sketches = new Map<Digest, readonly number[]>()

  /** As registries have them, by rootfs. */
  readonly #published = new Map<Digest, BootProfile>()

  constructor(parts: BootProfilesParts) {
    this.#parts = parts
  }

  /** Takes up those of the catalog. */
  async open(): Promise<void> {
    for await (const { rootfs, sketch } of this.#parts.catalog.profiles()) this.#sketches.set(rootfs, sketch)
  }

  /** One that was recorded here. */
  async keep(profile: BootProfile): Promise<void> {
    const known = await this.#parts.catalog.profile(profile.rootfs)
    if (known !== undefined && known.chunks.length >= profile.chunks.length) return
    await this.#parts.catalog.putProfile(profile)
    this.#sketches.set(profile.rootfs, profile.sketch)
  }

  /** One that is published with an image; the bytes are anybody's. */
  addPublished(bytes: Uint8Array): void {
    try {
      const profile = parseBootProfile(bytes)
      this.#published.delete(profile.rootfs)
      this.#published.set(profile.rootfs, profile)
      if (this.#published.size > maxPublished) this.#published.delete(this.#published.keys().next().value!)
    } catch (error) {
      this.#parts.log.debug('published boot profile is none', { error })
    }
  }

  /** That of the rootfs, or of the one here that has most in common with it, if any. */
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

  /** That of the rootfs, or else of a relative: from this host, its region, the registry. What others have recorded is not kept. */
  async find(
    subject: ProfileSubject,
    tables: readonly Digest[],
    { signal }: { signal: AbortSignal },
  ): Promise<{ profile: BootProfile; source: ProfileSource } | undefined> {
    const own = await this.nearest(subject)
    if (own?.rootfs === subject.rootfs) return { profile: own, source: 'local' }
    const from = (
      source: ProfileSource,
      profiles: Iterable<BootProfile>,
    ): { profile: BootProfile; source: ProfileSource; kinship: number }[] =>
      [...profiles]
        .map((profile) => ({ profile, source, kinship: kinshipOf(profile, subject) }))
        .filter(({ kinship }) => kinship > 0)
    const all = [
      ...from('local', own === undefined ? [] : [own]),
      ...from('peer', await this.#ask(subject, tables, signal)),
      ...from('registry', this.#published.values()),
    ]
    // Of equals in kinship, of which Infinity is one, the difference is no number.
    return all.toSorted((one, other) =>
      one.kinship === other.kinship
        ? other.profile.chunks.length - one.profile.chunks.length
        : other.kinship - one.kinship,
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

/** Digits of a digest by which chunks are looked up: 48 bits, which two of an image hardly share. */
const keyBytes = 6

/** Numbers of the chunks in the order of the profile: those that the image has, each once. */
export function profileChunks(digests: readonly Digest[], tables: readonly ChunkTable[]): number[] {
  const places = new Map<number, { raw: Uint8Array; at: number }>()
  for (const [at, digest] of digests.entries()) {
    const raw = Buffer.from(digestToBytes(digest))
    const key = raw.readUIntBE(0, keyBytes)
    if (!places.has(key)) places.set(key, { raw, at })
  }
  const found = Array.from<number | undefined>({ length: digests.length })
  let first = 0
  for (const table of tables) {
    const all = Buffer.from(table.digests.buffer, table.digests.byteOffset, table.digests.byteLength)
    for (let i = 0; i < table.count; i++) {
      const place = places.get(all.readUIntBE(i * digestBytes, keyBytes))
      if (place !== undefined && all.subarray(i * digestBytes, (i + 1) * digestBytes).equals(place.raw))
        found[place.at] ??= first + i
    }
    first += table.count
  }
  return found.filter((chunk) => chunk !== undefined)
}
