import type { Digest } from '../../protocol/digest.ts'
import type { BootReplay } from '../model/boot-replay.ts'
import { Boot, type BootParts } from './boot.ts'
import type { BootingRootfs } from './booting-rootfs.ts'

/** The boots of the rootfs that are mounted, one for each. */
export class Boots {
  readonly #parts: BootParts
  readonly #enabled: boolean
  readonly #running = new Map<Digest, Boot>()

  /** @param options `enabled`: without it boots are neither recorded nor replayed */
  constructor(parts: BootParts, { enabled }: { enabled: boolean }) {
    this.#parts = parts
    this.#enabled = enabled
  }

  /** A rootfs is mounted. Only its first mount is a boot: later ones find its pages in the kernel's cache. */
  start(rootfs: BootingRootfs): void {
    if (this.#enabled && !this.#running.has(rootfs.digest))
      this.#running.set(rootfs.digest, new Boot(this.#parts, rootfs))
  }

  /** How far the replay for this rootfs is; undefined if there is none. */
  status(rootfs: Digest): BootReplay | undefined {
    return this.#running.get(rootfs)?.status()
  }

  /** No mount of this rootfs is left: keeps the profile as far as it was recorded. */
  async end(rootfs: Digest): Promise<void> {
    const boot = this.#running.get(rootfs)
    this.#running.delete(rootfs)
    await boot?.end()
  }

  async endAll(): Promise<void> {
    await Promise.all([...this.#running.keys()].map(async (rootfs) => await this.end(rootfs)))
  }
}
