/**
 * Decides whose turn it is. Sources take turns, and within a source its members do: a host with many identities at one
 * address gets no more than one with one. Each stands in it once.
 */
export class Turns<T extends { readonly source: string }> {
  /** The next source first, and in it the next member. */
  readonly #waiting = new Map<string, Set<T>>()

  get isEmpty(): boolean {
    return this.#waiting.size === 0
  }

  /** Has it wait for a turn, after all that wait; one that waits already stays where it is. */
  add(member: T): void {
    const members = this.#waiting.get(member.source)
    if (members === undefined) this.#waiting.set(member.source, new Set([member]))
    else members.add(member)
  }

  delete(member: T): void {
    const members = this.#waiting.get(member.source)
    if (members?.delete(member) === true && members.size === 0) this.#waiting.delete(member.source)
  }

  /** The next one for which this is so. */
  find(isSo: (member: T) => boolean): T | undefined {
    for (const members of this.#waiting.values()) for (const member of members) if (isSo(member)) return member
    return undefined
  }

  /** Takes out the one whose turn it is. */
  next(): T | undefined {
    for (const [source, members] of this.#waiting) {
      this.#waiting.delete(source)
      for (const member of members) {
        members.delete(member)
        // Its other members wait behind the other sources.
        if (members.size > 0) this.#waiting.set(source, members)
        return member
      }
    }
    return undefined
  }
}
