import type { Statement } from '../../protocol/attestation.ts'
import type { Catalog } from '../store/catalog.ts'
import type { LieRecord } from '../store/lie-record.ts'
import { imageOf } from './belief.ts'

/**
 * Lies that are remembered; beyond it the oldest is forgotten. Each costs this host a reading of all layers of an image,
 * so nobody can have it forget one soon.
 */
export const maxLies = 1024

export interface LiesParts {
  catalog: Pick<Catalog, 'lies' | 'putLie' | 'deleteLie'>
}

/** Statements that this host has proved false, and so whom it never believes again. The catalog keeps them. */
export class Lies {
  readonly #parts: LiesParts
  /** The oldest first. */
  readonly #lies: LieRecord[]

  private constructor(parts: LiesParts, lies: LieRecord[]) {
    this.#parts = parts
    this.#lies = lies
  }

  static async open(parts: LiesParts): Promise<Lies> {
    const lies = (await parts.catalog.lies()).sort((a, b) => a.foundAtMs - b.foundAtMs)
    return new Lies(parts, lies)
  }

  /**
   * Whether the owner of the key has signed something false. One who only passed on what he was told is not believed again
   * about what he is told, and still about what he has read.
   * @param options `told`: of a statement of which its maker says that he was told
   */
  isLiar(key: string, { told = false }: { told?: boolean | undefined } = {}): boolean {
    return this.#lies.some((lie) => lie.maker === key && (told || !lie.told))
  }

  /** Whether this very statement is false, whoever signs it. */
  isContradicted({ rootfsDigest, ...image }: Statement): boolean {
    return this.#lies.some((lie) => lie.rootfsDigest === rootfsDigest && imageOf(lie) === imageOf(image))
  }

  async add(lie: LieRecord): Promise<void> {
    const known = this.#lies.findIndex((other) => isSame(other, lie))
    if (known >= 0) this.#lies.splice(known, 1)
    this.#lies.push(lie)
    await this.#parts.catalog.putLie(lie)
    for (const oldest of this.#lies.splice(0, Math.max(0, this.#lies.length - maxLies)))
      await this.#parts.catalog.deleteLie(oldest)
  }
}

function isSame(a: LieRecord, b: LieRecord): boolean {
  return a.maker === b.maker && a.rootfsDigest === b.rootfsDigest && imageOf(a) === imageOf(b)
}
