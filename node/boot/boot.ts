import { sketchOf, type BootProfile, type ProfileSubject } from '../../protocol/boot-profile.ts'
import { profileChunks, type BootProfiles, type ProfileSource } from './profiles.ts'
import type { BootReplay } from '../control/api.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import { ProfileReplay } from './replay.ts'
import type { Log } from '../base/log.ts'
import { recordBoot } from './recorder.ts'
import type { MountedRootfs } from '../mount/mounted-rootfs.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'

export interface BootParts {
  profiles: Pick<BootProfiles, 'find' | 'keep'>
  /** Whether a peer has the chunk. */
  isHeld: (request: ChunkRequest) => boolean
  log: Log
}

/** What reads more than this share of an image does not boot from it; an image smaller than this is read as it likes. Bytes. */
const maxShare = 0.4
const smallImageBytes = 64 * 1024 * 1024
/** Of the profile of another image, this share must be of use. */
const minUse = 0.5

/** The first seconds of a mount: what they read is recorded, what an earlier mount read in them is fetched ahead. */
export class Boot {
  readonly #parts: BootParts
  readonly #mounted: MountedRootfs
  readonly #subject: ProfileSubject
  readonly #ended = new AbortController()
  #running: Promise<void> = Promise.resolve()
  #replay: { replay: ProfileReplay; source: ProfileSource } | undefined

  constructor(parts: BootParts, mounted: MountedRootfs) {
    this.#parts = parts
    this.#mounted = mounted
    this.#subject = { rootfs: mounted.digest, sketch: sketchOf(mounted.manifest.layers.map(({ chunks }) => chunks)) }
  }

  start(): void {
    const failed = (what: string) => (error: unknown) =>
      this.#parts.log.debug(what, { error, rootfs: this.#mounted.digest })
    const tasks = [
      this.#record().catch(failed('boot is not recorded')),
      this.#fetchAhead().catch(failed('boot is not replayed')),
    ]
    this.#running = Promise.all(tasks).then(() => undefined)
  }

  /** Undefined where there is no profile. */
  status(): BootReplay | undefined {
    if (this.#replay === undefined) return undefined
    const { source, replay } = this.#replay
    return { source, total: { ...replay.total }, done: { ...replay.done }, fetched: { ...replay.fetched } }
  }

  /** Fetches no more, and keeps what was recorded so far. */
  async end(): Promise<void> {
    this.#ended.abort()
    await this.#running
  }

  async #record(): Promise<void> {
    const mounted = this.#mounted
    const isWaiting = (): boolean => mounted.waiting > 0
    const { chunks, count, seconds } = await recordBoot(
      { image: mounted.image, isWaiting },
      { signal: this.#ended.signal },
    )
    if (chunks.length === 0 || count > chunks.length || !this.#isBoot(chunks)) return
    await this.#parts.profiles.keep({
      ...this.#subject,
      seconds,
      chunks: chunks.map((chunk) => mounted.request(chunk).digest),
    })
  }

  async #fetchAhead(): Promise<void> {
    const mounted = this.#mounted
    const { signal } = this.#ended
    const tables = tablesOf(mounted.manifest)
    const found = await this.#parts.profiles.find(
      this.#subject,
      tables.slice(1).map(({ id }) => id),
      { signal },
    )
    if (found === undefined || signal.aborted) return
    const chunks = profileChunks(found.profile.chunks, tables)
    if (!this.#isBoot(chunks) || !this.#isOfUse(found.profile, chunks)) return
    const target = {
      has: (chunk: number) => mounted.has(chunk),
      lengthAt: (chunk: number) => mounted.request(chunk).lengthBytes,
      isHeld: (chunk: number) => this.#parts.isHeld(mounted.request(chunk)),
      fetch: async (chunk: number, options: { signal: AbortSignal }) =>
        await mounted.fetch(chunk, 'boot', options.signal),
    }
    const replay = new ProfileReplay({ target, log: this.#parts.log }, chunks)
    this.#replay = { replay, source: found.source }
    mounted.planned = new Set(chunks)
    await replay.run({ signal })
    mounted.planned = new Set()
  }

  #isBoot(chunks: readonly number[]): boolean {
    const { sizeBytes } = this.#mounted.image
    const touchedBytes = chunks.reduce((sum, chunk) => sum + this.#mounted.request(chunk).lengthBytes, 0)
    return sizeBytes <= smallImageBytes || touchedBytes <= maxShare * sizeBytes
  }

  /** Another format of the same layers has other metadata, and all else. */
  #isOfUse(profile: BootProfile, chunks: readonly number[]): boolean {
    const { sketch } = this.#subject
    const same = sketch.length === profile.sketch.length && sketch.every((value, i) => profile.sketch[i] === value)
    return chunks.length > 0 && (same || chunks.length >= minUse * profile.chunks.length)
  }
}
