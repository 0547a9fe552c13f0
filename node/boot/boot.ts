import { sketchOf, type BootProfile, type ProfileSubject } from '../../protocol/boot-profile.ts'
import type { Log } from '../base/log.ts'
import type { BootReplay, ProfileSource } from '../model/boot-replay.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { Availability } from '../peers/availability.ts'
import type { BootingRootfs } from './booting-rootfs.ts'
import { profileChunks, type BootProfiles } from './profiles.ts'
import { recordBoot } from './recorder.ts'
import { ProfileReplay } from './replay.ts'

export interface BootParts {
  profiles: Pick<BootProfiles, 'find' | 'keep'>
  availability: Pick<Availability, 'holders' | 'whenAsked'>
  log: Log
}

/** A program that reads a larger share of its image than this is not booting. */
const maxShare = 0.4
/** The share does not count in images up to this size, bytes. */
const smallImageBytes = 64 * 1024 * 1024
/** The profile of another image is replayed if at least this share of its chunks is in this image. */
const minUse = 0.5

/**
 * The first seconds of a mount: their reads are recorded, and the chunks that an earlier boot read are fetched ahead.
 */
export class Boot {
  readonly #parts: BootParts
  readonly #rootfs: BootingRootfs
  readonly #subject: ProfileSubject
  readonly #ended = new AbortController()
  readonly #running: Promise<unknown>
  #replay: { replay: ProfileReplay; source: ProfileSource } | undefined

  /** Starts at once. */
  constructor(parts: BootParts, rootfs: BootingRootfs) {
    this.#parts = parts
    this.#rootfs = rootfs
    this.#subject = { rootfs: rootfs.digest, sketch: sketchOf(rootfs.manifest.layers.map(({ chunks }) => chunks)) }
    const onFailure = (message: string) => (error: unknown) =>
      parts.log.debug(message, { error, rootfs: rootfs.digest })
    this.#running = Promise.all([
      this.#record().catch(onFailure('boot is not recorded')),
      this.#fetchAhead().catch(onFailure('boot is not replayed')),
    ])
  }

  /** Undefined if there is no profile to replay. */
  status(): BootReplay | undefined {
    if (this.#replay === undefined) return undefined
    const { source, replay } = this.#replay
    return { source, total: { ...replay.total }, done: { ...replay.done }, fetched: { ...replay.fetched } }
  }

  /** Fetches no more, and keeps the profile as far as it was recorded. */
  async end(): Promise<void> {
    this.#ended.abort()
    await this.#running
  }

  async #record(): Promise<void> {
    const rootfs = this.#rootfs
    const { chunks, count, seconds } = await recordBoot(
      { image: rootfs.image, isWaiting: () => rootfs.waitingChunks > 0 },
      { signal: this.#ended.signal },
    )
    if (chunks.length === 0 || count > chunks.length || !this.#isBoot(chunks)) return
    await this.#parts.profiles.keep({
      ...this.#subject,
      seconds,
      chunks: chunks.map((chunk) => rootfs.request(chunk).digest),
    })
  }

  async #fetchAhead(): Promise<void> {
    const rootfs = this.#rootfs
    const { signal } = this.#ended
    const tables = tablesOf(rootfs.manifest)
    // Those that hold layers of the rootfs are asked for a profile first.
    await Promise.all(tables.map(async ({ id }) => await this.#parts.availability.whenAsked(id, { signal })))
    const found = await this.#parts.profiles.find(
      this.#subject,
      tables.slice(1).map(({ id }) => id),
      { signal },
    )
    if (found === undefined || signal.aborted) return
    const chunks = profileChunks(found.profile.chunks, tables)
    if (!this.#isBoot(chunks) || !this.#isOfUse(found.profile, chunks)) return
    const target = {
      has: (chunk: number) => rootfs.has(chunk),
      lengthAt: (chunk: number) => rootfs.request(chunk).lengthBytes,
      isHeld: (chunk: number) => {
        const { table, index } = rootfs.request(chunk)
        return this.#parts.availability.holders(table, index).length > 0
      },
      fetch: async (chunk: number, options: { signal: AbortSignal }) =>
        await rootfs.fetchToStore(chunk, 'boot', options.signal),
    }
    const replay = new ProfileReplay({ target, log: this.#parts.log }, chunks)
    this.#replay = { replay, source: found.source }
    rootfs.plan(new Set(chunks))
    await replay.run({ signal })
    rootfs.plan(new Set())
  }

  #isBoot(chunks: readonly number[]): boolean {
    const { sizeBytes } = this.#rootfs.image
    const touchedBytes = chunks.reduce((sum, chunk) => sum + this.#rootfs.request(chunk).lengthBytes, 0)
    return sizeBytes <= smallImageBytes || touchedBytes <= maxShare * sizeBytes
  }

  /** A profile of the same layers is of use for either format: only the chunks of the metadata differ. */
  #isOfUse(profile: BootProfile, chunks: readonly number[]): boolean {
    const { sketch } = this.#subject
    const same = sketch.length === profile.sketch.length && sketch.every((value, i) => profile.sketch[i] === value)
    return chunks.length > 0 && (same || chunks.length >= minUse * profile.chunks.length)
  }
}
