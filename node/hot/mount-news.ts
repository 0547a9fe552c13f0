import { maxToldMounts, type ToldMount } from '../../protocol/messages/seed.ts'
import type { SeedImage } from '../../protocol/seed-job.ts'
import type { Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import type { SeedClient } from '../peers/seed/client.ts'
import { keyOf } from './mount-counts.ts'

/** Mounts are gathered for so long, so that many are one message (ms). */
const gatherMs = 1_000

export interface MountNewsParts {
  /** Peer id of this host. */
  own: string
  /** Peer ids of the hosts that count the mounts of an image. */
  countersOf: (image: SeedImage) => readonly string[]
  client: Pick<SeedClient, 'mounted'>
  /** Counts what this host has mounted, where it is a counter itself. */
  count: (images: readonly ToldMount[]) => void
  clock: Clock
  log: Log
  /** Aborts when this host leaves. */
  signal: AbortSignal
}

/**
 * Tells the hosts that count the mounts of an image what this host has mounted: once, and whoever does not hear it does
 * not.
 */
export class MountNews {
  readonly #parts: MountNewsParts
  readonly #gathered = new Map<string, ToldMount>()
  #cancel: (() => void) | undefined

  constructor(parts: MountNewsParts) {
    this.#parts = parts
  }

  /** @param mounts 0 where the image was resolved only. Images beyond those of one message are not told. */
  note(image: SeedImage, mounts: number): void {
    const key = keyOf(image)
    const known = this.#gathered.get(key)
    if (known === undefined && this.#gathered.size >= maxToldMounts) return
    this.#gathered.set(key, { image, mounts: (known?.mounts ?? 0) + mounts })
    this.#cancel ??= this.#parts.clock.after(gatherMs, () => this.#tell())
  }

  stop(): void {
    this.#cancel?.()
    this.#gathered.clear()
  }

  #tell(): void {
    this.#cancel = undefined
    const { own, countersOf, client, count, log, signal } = this.#parts
    const byCounter = new Map<string, ToldMount[]>()
    for (const told of this.#gathered.values())
      for (const counter of countersOf(told.image)) byCounter.set(counter, [...(byCounter.get(counter) ?? []), told])
    this.#gathered.clear()
    for (const [peer, images] of byCounter) {
      if (peer === own) count(images)
      else
        client
          .mounted(peer, images, { signal })
          .catch((error: unknown) => log.debug('member does not count mounts', { error, peer }))
    }
  }
}
