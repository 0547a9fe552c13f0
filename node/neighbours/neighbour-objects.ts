import type { BootProfile, ProfileSubject } from '../../protocol/boot-profile.ts'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Bandwidth } from '../base/bandwidth.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { NeighbourRegion } from './neighbour-region.ts'

/** How long all neighbours together may take for a rootfs manifest (ms): one of an image of 60 GB has 10 MB. */
const manifestMs = 10_000

export interface NeighbourObjectsParts {
  /** In the order in which they are asked. */
  neighbours: readonly Pick<NeighbourRegion, 'isAwake' | 'objects'>[]
  /** This host's own region, which is asked for boot profiles first. */
  region: Pick<RegionObjects, 'askProfiles'>
  bandwidth: Pick<Bandwidth, 'waitMs'>
}

/** Asks neighbour regions for objects that are named by a digest, in the place of the registry, before it. */
export class NeighbourObjects {
  readonly #parts: NeighbourObjectsParts

  constructor(parts: NeighbourObjectsParts) {
    this.#parts = parts
  }

  /**
   * The rootfs manifest with this digest.
   * @returns undefined where no neighbour delivers it: the registry is read then
   * @throws the signal's reason; nothing else
   */
  async fetchRootfs(digest: Digest, { signal }: { signal: AbortSignal }): Promise<RootfsManifest | undefined> {
    const ended = AbortSignal.any([signal, AbortSignal.timeout(manifestMs)])
    for (const { objects } of await this.#awake({ signal })) {
      const found = await objects.fetchRootfs(digest, { signal: ended }).catch((error: unknown) => {
        signal.throwIfAborted()
        if (!ended.aborted && !isP2pfsError(error)) throw error
        return undefined
      })
      if (found !== undefined) return found
    }
    return undefined
  }

  /**
   * Boot profiles of members of the own region, as {@link RegionObjects.askProfiles}; after them, where none of these
   * is of this very rootfs, one of it from a neighbour. A profile is a hint, whoever gives it.
   */
  askProfiles(
    subject: ProfileSubject,
    tables: readonly Digest[],
    { signal }: { signal: AbortSignal },
  ): Promise<BootProfile | undefined>[] {
    const own = this.#parts.region.askProfiles(subject, tables, { signal })
    if (this.#parts.neighbours.length === 0) return own
    const isExact = (profile: BootProfile | undefined): boolean => profile?.rootfs === subject.rootfs
    const near = async (): Promise<BootProfile | undefined> => {
      if ((await Promise.all(own)).some(isExact)) return undefined
      const awake = await this.#awake({ signal })
      const asked = await Promise.all(awake.flatMap(({ objects }) => objects.askProfiles(subject, tables, { signal })))
      return asked.find(isExact)
    }
    return [...own, near().catch(() => undefined)]
  }

  /** None while their bandwidth is used up: the registry is read then. */
  async #awake({ signal }: { signal: AbortSignal }): Promise<NeighbourObjectsParts['neighbours']> {
    const { neighbours, bandwidth } = this.#parts
    if (bandwidth.waitMs(false) > 0) return []
    const areAwake = await Promise.all(neighbours.map(async (neighbour) => await neighbour.isAwake({ signal })))
    return neighbours.filter((_, i) => areAwake[i])
  }
}
