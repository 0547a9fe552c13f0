/** A host of the region, as it describes itself. */
export interface RosterMember {
  /** Peer id. */
  readonly id: string
  readonly name: string
  /** Multiaddrs at which it can be dialled. */
  readonly addresses: readonly string[]
}

/** The members of the region that are alive, connected or not, this host included. */
export class Roster {
  /** Peer id of this host. */
  readonly own: string
  readonly #members = new Map<string, RosterMember>()
  readonly #listeners = new Set<() => void>()
  #ids: readonly string[] | undefined

  constructor(own: RosterMember) {
    this.own = own.id
    this.#members.set(own.id, own)
  }

  /** Ids of the members, this host included: the same array until it changes. */
  ids(): readonly string[] {
    this.#ids ??= [...this.#members.keys()].sort()
    return this.#ids
  }

  /** How many members there are, this host included. */
  get size(): number {
    return this.#members.size
  }

  get(id: string): RosterMember | undefined {
    return this.#members.get(id)
  }

  /** Calls the listener after a member has come or gone. @returns ends the calls */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** A member has come, or describes itself anew. */
  put(member: RosterMember): void {
    const isNew = !this.#members.has(member.id)
    this.#members.set(member.id, member)
    if (isNew) this.#changed()
  }

  /** A member has gone. This host stays. */
  delete(id: string): void {
    if (id !== this.own && this.#members.delete(id)) this.#changed()
  }

  #changed(): void {
    this.#ids = undefined
    for (const listener of this.#listeners) listener()
  }
}
