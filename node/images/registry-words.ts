import type { Digest } from '../../protocol/digest.ts'
import { registryKey, type RegistryWord } from '../../protocol/messages/registry-word.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import type { AnswerTimes } from './answer-times.ts'
import type { SilentRegistries } from './silent-registries.ts'

/** Members are not believed to find a registry silent for so long after it has answered this host meanwhile (ms). */
const disbelieveMs = 5 * 60_000
/** Registries of which that is remembered. */
const maxDisbelieved = 256

export interface RegistryWordsParts {
  region: Pick<RegionObjects, 'askRegistry'>
  trust: Pick<IndexTrust, 'accepts'>
  silent: Pick<SilentRegistries, 'has' | 'registries'>
  times: Pick<AnswerTimes, 'usualMs' | 'registries'>
  log: Log
}

/**
 * Asks members for their experience with registries. A word only ever shortens how long a mount waits for an answer, and counts where
 * the word of the member about images counts, too.
 */
export class RegistryWords {
  readonly #parts: RegistryWordsParts
  readonly #disbelieved: ExpiringMap<string>

  /** @param options `now`: the clock (ms) */
  constructor(parts: RegistryWordsParts, { now }: { now: () => number }) {
    this.#parts = parts
    this.#disbelieved = new ExpiringMap({ maxEntries: maxDisbelieved, now })
  }

  /** Asks the members; those that cannot be asked say nothing. @param options `onWord`: called for each word that counts */
  async ask(
    registry: string,
    { signal, onWord }: { signal: AbortSignal; onWord: (word: RegistryWord) => void },
  ): Promise<void> {
    const { region, trust, log } = this.#parts
    try {
      await region.askRegistry(registryKey(registry), {
        signal,
        onWord: (word, peer) => {
          if (!trust.accepts(peer) || (word.isSilent && this.#disbelieved.has(registry))) return false
          onWord(word)
          return true
        },
      })
    } catch (error) {
      if (!signal.aborted) log.debug('members cannot be asked about a registry', { error, registry })
    }
  }

  /** The registry has answered this host, whatever members say. */
  disbelieve(registry: string): void {
    this.#disbelieved.set(registry, true, disbelieveMs)
  }

  /** This host's own experience with the registry that has this key. */
  own(key: Digest): RegistryWord | undefined {
    const { silent, times } = this.#parts
    for (const registry of new Set([...silent.registries(), ...times.registries()]))
      if (registryKey(registry) === key) return { isSilent: silent.has(registry), usualMs: times.usualMs(registry) }
    return undefined
  }
}
