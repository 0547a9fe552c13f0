import type { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { RegionMessage } from '../../protocol/messages/region.ts'

/** Changes are gathered for so long before they go out, milliseconds: a fraction of what a chunk takes. */
const gatherMs = 20

/** Tells what this host holds: new regions at once, changes gathered. */
export class Announcer {
  readonly #broadcast: (message: RegionMessage) => void
  readonly #added = new Map<Digest, Set<number>>()
  readonly #removed = new Map<Digest, Set<number>>()
  #timer: NodeJS.Timeout | undefined

  constructor(broadcast: (message: RegionMessage) => void) {
    this.#broadcast = broadcast
  }

  table(table: Digest, held: Bitmap): void {
    this.#broadcast({ type: 'have', table, held })
  }

  change(table: Digest, added: readonly number[], removed: readonly number[]): void {
    move(table, added, this.#added, this.#removed)
    move(table, removed, this.#removed, this.#added)
    this.#timer ??= setTimeout(() => this.#flush(), gatherMs)
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #flush(): void {
    this.#timer = undefined
    for (const table of new Set([...this.#added.keys(), ...this.#removed.keys()])) {
      const added = [...(this.#added.get(table) ?? [])]
      const removed = [...(this.#removed.get(table) ?? [])]
      if (added.length + removed.length > 0) this.#broadcast({ type: 'delta', table, added, removed })
    }
    this.#added.clear()
    this.#removed.clear()
  }
}

function move(
  table: Digest,
  indexes: readonly number[],
  to: Map<Digest, Set<number>>,
  from: Map<Digest, Set<number>>,
): void {
  if (indexes.length === 0) return
  let set = to.get(table)
  if (set === undefined) {
    set = new Set()
    to.set(table, set)
  }
  for (const index of indexes) {
    set.add(index)
    from.get(table)?.delete(index)
  }
}
