import type { Libp2p } from '@libp2p/interface'
import type { BlobMap } from '../../../protocol/blob-map.ts'
import type { BootProfile, ProfileSubject } from '../../../protocol/boot-profile.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../../protocol/image-record.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { objectProtocol } from '../../../protocol/messages/object.ts'
import type { RegistryWord } from '../../../protocol/messages/registry-word.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { systemClock, type Clock } from '../../base/clock.ts'
import { LatencyEstimate } from '../../base/latency-estimate.ts'
import type { Log } from '../../base/log.ts'
import { orAbort } from '../../base/single-flight.ts'
import { nameKey } from '../../../protocol/messages/location.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'
import { AnswerPace } from './answer-pace.ts'
import {
  askBlob,
  askBlobMap,
  askImage,
  askImporting,
  askLayer,
  askProfile,
  askRegistryWord,
  askRootfs,
  type ObjectChannel,
} from './client.ts'
import type { LocatedMembers } from './located-members.ts'
import { MemberLookup, type Asking, type LookupResult, type MemberLookupOptions } from './member-lookup.ts'

/**
 * How long a member may take to begin its answer before another is asked (ms). Answers come from memory or the catalog.
 * Twice the most, and the second after which a member is silent, stay below what a lookup of a blob map may take.
 */
const latencyBounds = { firstMs: 300, minMs: 50, maxMs: 500 } as const
/**
 * How long more image records are gathered after the first (ms): members of a region that are well answer within it, and
 * nobody notices it in a mount.
 */
const gatherMs = 50
/** How long a member may take for a boot profile (ms). */
const profileTimeoutMs = 2_000
/** Members that are asked for a boot profile. */
const maxAskedForProfile = 8

export interface RegionObjectsParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'ban'> & { members: () => Peer[] }
  /** Chooses the members that are asked; all by default. */
  located?: Pick<LocatedMembers, 'find'>
  log: Log
  /** Called for each piece of an answer, with its size (bytes). */
  onBytes?: (bytes: number) => void
  clock?: Clock
}

type Question<T> = (channel: ObjectChannel, signal: AbortSignal, peer: string) => Promise<T | undefined>

/**
 * Asks the members of the region for what they know: image records, metadata of layers, boot profiles. In a small region
 * that is all members, in a large one those whom the trackers of what is asked for name, and some that are connected.
 */
export class RegionObjects {
  readonly #parts: RegionObjectsParts
  readonly #clock: Clock
  readonly #located: Pick<LocatedMembers, 'find'> | undefined
  readonly #latency = new LatencyEstimate(latencyBounds)

  constructor(parts: RegionObjectsParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
    this.#located = parts.located
  }

  /** Asks at once. @returns the id of one that is importing the image with this manifest */
  async findImport(manifestDigest: Digest, { signal }: { signal: AbortSignal }): Promise<string | undefined> {
    const question: Question<string> = async (channel, ended, peer) =>
      (await askImporting(channel, manifestDigest, ended)) ? peer : undefined
    return (await this.#look(manifestDigest, signal, question, { atOnce: true })).found
  }

  /**
   * Asks at once what members have seen of the registry with this key (`registryKey`), until one says that it is silent.
   * @param options `onWord`: called for each word, as it comes; it says whether the word counts
   */
  async askRegistry(
    key: Digest,
    { signal, onWord }: { signal: AbortSignal; onWord: (word: RegistryWord, peer: string) => boolean },
  ): Promise<void> {
    const question: Question<true> = async (channel, ended, peer) => {
      const word = await askRegistryWord(channel, key, ended)
      return word !== undefined && onWord(word, peer) && word.isSilent ? true : undefined
    }
    await this.#look(key, signal, question, { atOnce: true })
  }

  /**
   * Asks at once, and gathers what members say until all have answered, or for {@link gatherMs} after the first
   * record: who answers first is not right for that.
   * @param options `isOfUse`: which records count; all where it is not given
   * @returns the records, and the ids of the peers that sent them, in the order in which they came
   */
  async findImages(
    name: ImageName,
    { signal, isOfUse = () => true }: { signal: AbortSignal; isOfUse?: (record: ImageRecord, peer: string) => boolean },
  ): Promise<{ record: ImageRecord; peer: string }[]> {
    const found: { record: ImageRecord; peer: string }[] = []
    const gathered = new AbortController()
    let cancel: (() => void) | undefined
    const question: Question<never> = async (channel, ended, peer) => {
      const record = await askImage(channel, name, ended)
      if (record === undefined || !isOfUse(record, peer)) return undefined
      found.push({ record, peer })
      cancel ??= this.#clock.after(gatherMs, () => gathered.abort())
      return undefined
    }
    try {
      await this.#look(nameKey(name), AbortSignal.any([signal, gathered.signal]), question, { atOnce: true })
    } catch (error) {
      if (signal.aborted || !gathered.signal.aborted) throw error
    } finally {
      cancel?.()
    }
    return [...found]
  }

  /** Asks one member after the other, first the peer `first`. @returns undefined where nobody has it */
  async fetchRootfs(
    digest: Digest,
    { signal, first }: { signal: AbortSignal; first?: string },
  ): Promise<RootfsManifest | undefined> {
    const question: Question<RootfsManifest> = async (channel, ended) => await askRootfs(channel, digest, ended)
    return await this.#askStaggered(digest, signal, question, { ...(first !== undefined && { first }) })
  }

  /**
   * Asks one member after the other.
   * @returns undefined where nobody has it
   * @throws with `mustAnswer`: unavailable where the region has not answered. It has when at least one member says that
   *   it does not have it, and so do all others that are not silent
   */
  async fetchLayerIndex(
    diffId: Digest,
    { signal, mustAnswer = false }: { signal: AbortSignal; mustAnswer?: boolean },
  ): Promise<LayerIndex | undefined> {
    const question: Question<LayerIndex> = async (channel, ended) => await askLayer(channel, diffId, ended)
    return await this.#askStaggered(diffId, signal, question, { mustAnswer })
  }

  /** As {@link fetchLayerIndex}. */
  async fetchBlobMap(
    digest: Digest,
    { signal, mustAnswer = false }: { signal: AbortSignal; mustAnswer?: boolean },
  ): Promise<BlobMap | undefined> {
    const question: Question<BlobMap> = async (channel, ended) => await askBlobMap(channel, digest, ended)
    return await this.#askStaggered(digest, signal, question, { mustAnswer })
  }

  /**
   * Asks one member for what it has read from a registry, or still reads: the signal says how long that may take.
   * @param options `isNamedByDigest`: whether the key is the digest of the content; otherwise nothing proves what it sends
   * @returns undefined where it does not have it, or is not connected
   * @throws unavailable, invalid, timeout; the signal's reason
   */
  async fetchBlob(
    key: Digest,
    peerId: string,
    { signal, isNamedByDigest = true }: { signal: AbortSignal; isNamedByDigest?: boolean },
  ): Promise<Uint8Array | undefined> {
    const peer = this.#parts.membership.members().find(({ id }) => id === peerId)
    if (peer === undefined) return undefined
    const question: Question<Uint8Array> = async (channel, ended) =>
      await askBlob(channel, key, { isNamedByDigest }, ended)
    return await this.#ask(peer, signal, question).answer
  }

  /**
   * Asks some members at once: those that are awake, those first that know one of the segments `tables`.
   * @returns an answer for each, in the order in which they were asked; none rejects
   */
  askProfiles(
    subject: ProfileSubject,
    tables: readonly Digest[],
    { signal }: { signal: AbortSignal },
  ): Promise<BootProfile | undefined>[] {
    const rank = ({ holdings, standing }: Peer): number =>
      (standing.isSilent ? 2 : 0) + (tables.some((table) => holdings.knows(table)) ? 0 : 1)
    const members = this.#parts.membership.members()
    const awake = members.filter(({ standing }) => !standing.isSilent)
    return (awake.length > 0 ? awake : members)
      .toSorted((a, b) => rank(a) - rank(b))
      .slice(0, maxAskedForProfile)
      .map(async (peer) => {
        const timeout = new AbortController()
        const cancel = this.#clock.after(profileTimeoutMs, () =>
          timeout.abort(new P2pfsError('timeout', 'the member is too slow')),
        )
        const limited = AbortSignal.any([signal, timeout.signal])
        const { answer } = this.#ask(peer, limited, async (channel, ended) => await askProfile(channel, subject, ended))
        return await orAbort(
          answer.catch(() => undefined),
          limited,
        )
          .catch(() => undefined)
          .finally(cancel)
      })
  }

  /**
   * Asks one member after the other, first the peer `first` and silent ones last.
   * @returns the first answer that is not undefined
   */
  async #askStaggered<T>(
    key: Digest,
    signal: AbortSignal,
    question: Question<T>,
    { first, mustAnswer = false }: { first?: string; mustAnswer?: boolean },
  ): Promise<T | undefined> {
    const result = await this.#look(key, signal, question, { atOnce: false, first })
    const { found, refusals, failures, members, isLocated } = result
    if (found !== undefined || !mustAnswer) return found
    if (!isLocated) throw new P2pfsError('unavailable', 'no tracker of what is asked for answers', { key })
    // A member that breaks the protocol is not asked again: its answer is not waited for.
    const unanswered = failures.filter(({ error }) => !isP2pfsError(error, 'invalid'))
    const isSilence = ({ error, wasSilent }: (typeof failures)[number]): boolean =>
      wasSilent || isP2pfsError(error, 'timeout')
    const open = unanswered.find((failure) => !isSilence(failure))
    const hasNobodyAnswered = refusals === 0 && members > failures.length - unanswered.length
    if (open !== undefined || hasNobodyAnswered)
      throw new P2pfsError('unavailable', 'a member of the region does not answer', {
        cause: (open ?? unanswered[0])?.error,
      })
    return undefined
  }

  async #look<T>(
    key: Digest,
    signal: AbortSignal,
    question: Question<T>,
    options: MemberLookupOptions,
  ): Promise<LookupResult<T> & { isLocated: boolean }> {
    const all = { members: this.#parts.membership.members(), isLocated: true }
    const { members, isLocated } = (await this.#located?.find(key, { signal, first: options.first })) ?? all
    const lookup = new MemberLookup<T>(
      {
        clock: this.#clock,
        usualMs: this.#latency.p95Ms,
        ask: (member, ended) => this.#ask(member, ended, question),
      },
      members,
      options,
    )
    return { ...(await lookup.run(signal)), isLocated }
  }

  /**
   * Asks one member over a stream of its own. Its answer decides whether it counts as silent: when the signal fires
   * before it has begun to answer, it is watched on until it has, or is silent.
   */
  #ask<T>(peer: Peer, signal: AbortSignal, question: Question<T>): Asking<T> {
    const { host, membership, log } = this.#parts
    const startedAtMs = this.#clock.now()
    const isWatched = !peer.standing.isSilent
    const ended = new AbortController()
    const pace = new AnswerPace({
      clock: this.#clock,
      standing: peer.standing,
      onSilent: (error) => ended.abort(error),
    })
    const onBytes = (bytes: number): void => {
      if (pace.bytes === 0) this.#latency.add(this.#clock.now() - startedAtMs)
      pace.received(bytes)
      this.#parts.onBytes?.(bytes)
      if (signal.aborted) ended.abort(signal.reason)
    }
    const onAbort = (): void => {
      if (!isWatched || pace.hasBegun) ended.abort(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    const asking = async (): Promise<T | undefined> => {
      const stream = await host.dialProtocol(peer.libp2pId, objectProtocol, { signal: ended.signal })
      return await question(
        { stream, onBytes, onWhole: () => pace.stop(), onComing: () => pace.coming() },
        ended.signal,
        peer.id,
      )
    }
    const answering = async (): Promise<T | undefined> => {
      try {
        const answer = await orAbort(asking(), ended.signal)
        peer.standing.answered()
        return answer
      } catch (error) {
        if (signal.aborted) throw error
        if (isP2pfsError(error, 'invalid')) membership.ban(peer, error)
        else log.debug('peer did not answer for an object', { error, peer: peer.id })
        // One that breaks off is as good as silent for those who ask next.
        peer.standing.fellSilent()
        throw error
      } finally {
        pace.stop()
        signal.removeEventListener('abort', onAbort)
      }
    }
    return { answer: answering(), bytes: () => pace.bytes }
  }
}
