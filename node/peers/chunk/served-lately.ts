import type { Digest } from '../../../protocol/digest.ts'
import { BoundedMap } from '../../base/bounded-map.ts'

/** Chunks whose takers are remembered: those of some 400 MB, a few hundred bytes each. */
const maxChunks = 4096
/** Takers of one chunk that are remembered, the last ones. */
const maxTakers = 4

/** Which peers have taken which chunks a short time ago: they hold them, most likely. */
export class ServedLately {
  readonly #takers = new BoundedMap<Digest, readonly string[]>({ maxEntries: maxChunks })

  add(digest: Digest, peer: string): void {
    const others = this.of(digest).filter((id) => id !== peer)
    this.#takers.set(digest, [peer, ...others].slice(0, maxTakers))
  }

  /** Ids of the peers, the last one first. */
  of(digest: Digest): readonly string[] {
    return this.#takers.get(digest) ?? []
  }
}
