import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Inventory } from '../store/inventory.ts'
import type { Membership } from '../peers/membership.ts'

/** A host of the region: this one, or a member. */
export interface RegionHost {
  /** Peer id. */
  id: string
  name: string
}

export interface RegionHostsParts {
  /** This host. */
  self: RegionHost
  membership: Pick<Membership, 'members' | 'roster' | 'byResponsibility' | 'firstByResponsibility'>
  inventory: Pick<Inventory, 'localBytes'>
}

/** The hosts of the region that a job can be placed on, as this host knows them now. */
export class RegionHosts {
  readonly #parts: RegionHostsParts

  constructor(parts: RegionHostsParts) {
    this.#parts = parts
  }

  get own(): string {
    return this.#parts.self.id
  }

  /** This host and the members that are alive, by id: a request to one that is not connected connects to it. */
  alive(): Map<string, RegionHost> {
    const { self, membership } = this.#parts
    const { roster } = membership
    const members = roster.ids().map((id) => ({ id, name: id === self.id ? self.name : (roster.get(id)?.name ?? id) }))
    return new Map([self, ...members].map((host) => [host.id, host]))
  }

  /** Ids of this host and of the members that are not silent, in the order in which they answer for the key. */
  byResponsibility(key: string): string[] {
    return this.#parts.membership.byResponsibility(key)
  }

  /** The first of them, `count` at most: cheap in a large region, too. */
  firstByResponsibility(key: string, count: number): string[] {
    return this.#parts.membership.firstByResponsibility(key, count)
  }

  /** Ids of the hosts: first those that hold most of the segments, then as they answer for the key. */
  byHoldings(key: string, tables: readonly ChunkTable[]): string[] {
    const { self, membership, inventory } = this.#parts
    const held = new Map(
      membership.members().map(({ id, holdings }) => {
        return [id, tables.reduce((sum, table) => sum + shareOf(table, holdings.countOf(table.id)), 0)]
      }),
    )
    held.set(self.id, inventory.localBytes(tables))
    return this.byResponsibility(key).toSorted((a, b) => (held.get(b) ?? 0) - (held.get(a) ?? 0))
  }
}

/** About how many bytes so many chunks of the segment are. */
const shareOf = ({ sizeBytes, count }: ChunkTable, held: number): number =>
  count === 0 ? 0 : (sizeBytes * held) / count
