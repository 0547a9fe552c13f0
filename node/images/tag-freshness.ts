import type { FoundRootfs } from '../model/image.ts'
import { maxClockSkewMs, newestFirst } from '../publish/belief.ts'
import { describeBelief } from '../publish/index-trust.ts'
import type { RecordKeeper } from './record-keeper.ts'
import type { RegionRecords } from './region-records.ts'

/** Knows how long ago the registry was asked for a tag, by this host or by a member whose word counts here. */
export class TagFreshness {
  readonly #keeper: RecordKeeper
  readonly #records: RegionRecords
  readonly #maxAgeMs: number
  readonly #today: () => number

  /** @param options `maxAgeMs`: for so long nobody asks again; `today`: the clock (ms since 1970) */
  constructor(
    { keeper, records }: { keeper: RecordKeeper; records: RegionRecords },
    { maxAgeMs, today }: { maxAgeMs: number; today: () => number },
  ) {
    this.#keeper = keeper
    this.#records = records
    this.#maxAgeMs = maxAgeMs
    this.#today = today
  }

  /** Whether somebody who is believed about the name has asked the registry so lately that nobody does it again. */
  async isFresh(found: FoundRootfs): Promise<boolean> {
    return this.#isRecent(await this.#keeper.askedAtMs(found))
  }

  /** Clocks may differ within the bounds that the rules of belief have; one that was wrong keeps no tag for longer. */
  readonly #isRecent = (atMs: number): boolean => {
    const ageMs = this.#today() - atMs
    return this.#maxAgeMs > 0 && ageMs < this.#maxAgeMs && ageMs > -maxClockSkewMs
  }

  /**
   * Asks members for a tag that this host is about to ask the registry for: one of them may have asked a moment ago. It
   * is believed by the rules; and one that says again what this host knows must be believed as if this host knew
   * nothing.
   */
  async refresh(known: FoundRootfs, { signal }: { signal: AbortSignal }): Promise<FoundRootfs> {
    const { record } = known
    const told = (await this.#records.ask(record, undefined, signal)).filter(
      ({ record: { nameStatement }, name }) => name !== undefined && this.#isRecent(nameStatement.statedAtMs),
    )
    for (const { record: sent, peer, name: by, index } of newestFirst(told)) {
      const { name } = this.#records.judge(sent, peer, record, undefined) ?? {}
      if (name !== 'listed-key' && name !== 'member') continue
      if (sent.manifestDigest === record.manifestDigest) {
        const told = { ...known.record, nameStatement: sent.nameStatement }
        return { ...known, record: told }
      }
      // A member's word does not stand against what this host knows better.
      if (name === 'member' && known.belief.name !== 'member') continue
      const manifest = await this.#records.fetchRootfs({ record: sent, peer }, undefined, signal)
      if (manifest === undefined) continue
      await this.#keeper.store(sent, manifest)
      return { record: sent, manifest, belief: describeBelief(sent, by!, index), origin: 'peer' }
    }
    return known
  }
}
