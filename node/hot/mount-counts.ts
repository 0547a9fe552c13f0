import type { MountDemand, SeedImage } from '../../protocol/seed-job.ts'
import { hotLimits, type HotLimits } from './hot-limits.ts'

interface Weight {
  weight: number
  /** The time of that weight. */
  atMs: number
}

interface Entry {
  image: SeedImage
  sources: Map<string, Weight>
}

/** How often an image is mounted: mounts, each of which counts half after the half-life. */
export interface MountCount {
  image: SeedImage
  mounts: number
  hosts: number
}

type CountLimits = Pick<HotLimits, 'halfLifeMs' | 'perSource' | 'sources' | 'images' | 'imagesPerSource'>

/** An entry that counts less is forgotten. */
const leastWeight = 0.05

/** Counts mounts by image and by the source that tells of them, the older the less. */
export class MountCounts {
  readonly #entries = new Map<string, Entry>()
  readonly #now: () => number
  readonly #limits: CountLimits

  /** @param options `now`: the clock (ms) */
  constructor({ now }: { now: () => number }, limits: CountLimits = hotLimits) {
    this.#now = now
    this.#limits = limits
  }

  get size(): number {
    return this.#entries.size
  }

  /** Counts mounts that a source tells of. Beyond a bound the lightest entry is forgotten. */
  add(image: SeedImage, mounts: number, source: string): void {
    if (mounts <= 0) return
    const { perSource, sources, images, imagesPerSource } = this.#limits
    const key = keyOf(image)
    const known = this.#entries.get(key)
    const entry = known ?? { image, sources: new Map<string, Weight>() }
    const weight = Math.min(perSource, this.#weightOf(entry, source) + mounts)
    entry.sources.set(source, { weight, atMs: this.#now() })
    if (entry.sources.size > sources)
      entry.sources.delete(lightest(entry.sources.keys(), (of) => this.#weightOf(entry, of)))
    this.#entries.set(key, entry)
    if (known !== undefined) return
    const alone = [...this.#entries].filter(([, { sources }]) => sources.size === 1 && sources.has(source))
    if (alone.length > imagesPerSource) this.#forgetLightest(alone.map(([key]) => key))
    if (this.#entries.size > images) this.#forgetLightest(this.#entries.keys())
  }

  /** A tag has moved: what was mounted as `from` will be mounted as `to`. */
  inherit(from: SeedImage, to: SeedImage): void {
    const entry = this.#entries.get(keyOf(from))
    if (entry === undefined) return
    for (const source of entry.sources.keys()) {
      const heir = this.#entries.get(keyOf(to))
      const more = this.#weightOf(entry, source) - (heir === undefined ? 0 : this.#weightOf(heir, source))
      this.add(to, more, source)
    }
  }

  /** All counts, the heaviest first. Those that are next to nothing are forgotten. */
  list(): MountCount[] {
    const counts: MountCount[] = []
    for (const [key, entry] of this.#entries) {
      const count = this.#count(entry)
      if (count.mounts < leastWeight) this.#entries.delete(key)
      else counts.push(count)
    }
    return counts.sort((a, b) => b.mounts - a.mounts)
  }

  #count(entry: Entry): MountCount {
    let mounts = 0
    for (const source of entry.sources.keys()) mounts += this.#weightOf(entry, source)
    return { image: entry.image, mounts, hosts: entry.sources.size }
  }

  #weightOf({ sources }: Entry, source: string): number {
    const known = sources.get(source)
    return known === undefined ? 0 : known.weight * 0.5 ** ((this.#now() - known.atMs) / this.#limits.halfLifeMs)
  }

  #forgetLightest(keys: Iterable<string>): void {
    this.#entries.delete(lightest(keys, (key) => this.#count(this.#entries.get(key)!).mounts))
  }
}

/** The first of those that weigh least. */
function lightest(keys: Iterable<string>, weightOf: (key: string) => number): string {
  let found: { key: string; weight: number } | undefined
  for (const key of keys) {
    const weight = weightOf(key)
    if (weight < (found?.weight ?? Infinity)) found = { key, weight }
  }
  return found!.key
}

export const demandOf = ({ mounts, hosts }: MountCount): MountDemand => ({ mounts: Math.round(mounts), hosts })

export const keyOf = ({ reference, platform, format, manifestDigest, rootfsDigest }: SeedImage): string =>
  [reference, platform, format, manifestDigest, rootfsDigest].join(' ')

/** One text for the name of an image, whatever it stands for. */
export const nameKey = ({
  reference,
  platform,
  format,
}: Pick<SeedImage, 'reference' | 'platform' | 'format'>): string => `mounts ${reference} ${platform} ${format}`
