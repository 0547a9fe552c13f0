import type { Libp2p, Stream } from '@libp2p/interface'
import type { BlobMap } from '../../../protocol/blob-map.ts'
import type { BootProfile, ProfileSubject } from '../../../protocol/boot-profile.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../../protocol/image-record.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { objectProtocol } from '../../../protocol/messages/object.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { Log } from '../../base/log.ts'
import type { Membership } from '../membership.ts'
import type { Member } from '../peer.ts'
import { askBlobMap, askImage, askImporting, askLayer, askProfile, askRootfs } from './client.ts'

/**
 * How long all members together may take when they are asked at once (ms): the answer is in their memory or catalog.
 */
const atOnceTimeoutMs = 1_000
/**
 * How long more image records are gathered after the first (ms): members of a region that are well answer within it, and
 * nobody notices it in a mount.
 */
const gatherMs = 50
/** How long one member may take when members are asked in turn (ms): the answer may have 64 MiB. */
const inTurnTimeoutMs = 30_000
/** How long a member may take for a boot profile (ms). */
const profileTimeoutMs = 2_000
/** Members that are asked for a boot profile. */
const maxAskedForProfile = 8

export interface RegionObjectsParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'members' | 'ban'>
  log: Log
}

/** Asks the members of the region for what they know: image records, metadata of layers, boot profiles. */
export class RegionObjects {
  readonly #parts: RegionObjectsParts

  constructor(parts: RegionObjectsParts) {
    this.#parts = parts
  }

  /** Asks all members at once. @returns the id of one that is importing the image with this manifest */
  async findImport(manifestDigest: Digest, { signal }: { signal: AbortSignal }): Promise<string | undefined> {
    return await this.#askAtOnce(signal, async (stream, peer, timed) =>
      (await askImporting(stream, manifestDigest, timed)) ? peer : undefined,
    )
  }

  /**
   * Asks all members at once, and gathers what they say until all have answered, or for {@link gatherMs} after the first
   * record: who answers first is not right for that.
   * @param options `isOfUse`: which records count; all where it is not given
   * @returns the records, and the ids of the peers that sent them, in the order in which they came
   */
  async findImages(
    name: ImageName,
    { signal, isOfUse = () => true }: { signal: AbortSignal; isOfUse?: (record: ImageRecord, peer: string) => boolean },
  ): Promise<{ record: ImageRecord; peer: string }[]> {
    const timed = AbortSignal.any([signal, AbortSignal.timeout(atOnceTimeoutMs)])
    const found: { record: ImageRecord; peer: string }[] = []
    const gathered = Promise.withResolvers<void>()
    let timer: NodeJS.Timeout | undefined
    const asked = this.#parts.membership.members().map(async (peer) => {
      const record = await this.#ask(peer, timed, async (stream) => await askImage(stream, name, timed))
      if (record === undefined || !isOfUse(record, peer.id)) return
      found.push({ record, peer: peer.id })
      timer ??= setTimeout(gathered.resolve, gatherMs)
    })
    await Promise.race([gathered.promise, Promise.allSettled(asked)])
    clearTimeout(timer)
    signal.throwIfAborted()
    return [...found]
  }

  /** Asks the members in turn, first the peer `first`. @returns undefined where nobody has it */
  async fetchRootfs(
    digest: Digest,
    { signal, first }: { signal: AbortSignal; first?: string },
  ): Promise<RootfsManifest | undefined> {
    const question = async (stream: Stream, timed: AbortSignal): Promise<RootfsManifest | undefined> =>
      await askRootfs(stream, digest, timed)
    return await this.#askInTurn(signal, question, { ...(first !== undefined && { first }) })
  }

  /**
   * Asks the members in turn.
   * @returns undefined where nobody has it
   * @throws with `mustAnswer`: unavailable where nobody has it and not every member has answered
   */
  async fetchLayerIndex(
    diffId: Digest,
    { signal, mustAnswer = false }: { signal: AbortSignal; mustAnswer?: boolean },
  ): Promise<LayerIndex | undefined> {
    const question = async (stream: Stream, timed: AbortSignal): Promise<LayerIndex | undefined> =>
      await askLayer(stream, diffId, timed)
    return await this.#askInTurn(signal, question, { mustAnswer })
  }

  /** As {@link fetchLayerIndex}. */
  async fetchBlobMap(
    digest: Digest,
    { signal, mustAnswer = false }: { signal: AbortSignal; mustAnswer?: boolean },
  ): Promise<BlobMap | undefined> {
    const question = async (stream: Stream, timed: AbortSignal): Promise<BlobMap | undefined> =>
      await askBlobMap(stream, digest, timed)
    return await this.#askInTurn(signal, question, { mustAnswer })
  }

  /**
   * Asks some members at once, those first that know one of the segments `tables`.
   * @returns an answer for each, in the order in which they were asked; none rejects
   */
  askProfiles(
    subject: ProfileSubject,
    tables: readonly Digest[],
    { signal }: { signal: AbortSignal },
  ): Promise<BootProfile | undefined>[] {
    const rank = ({ holdings }: Member): number => (tables.some((table) => holdings.knows(table)) ? 0 : 1)
    const asked = this.#parts.membership
      .members()
      .toSorted((a, b) => rank(a) - rank(b))
      .slice(0, maxAskedForProfile)
    return asked.map(async (peer) => {
      const timed = AbortSignal.any([signal, AbortSignal.timeout(profileTimeoutMs)])
      return await this.#ask(peer, timed, async (stream) => await askProfile(stream, subject, timed)).catch(
        () => undefined,
      )
    })
  }

  /** @returns the first answer that is not undefined */
  async #askAtOnce<T>(
    signal: AbortSignal,
    question: (stream: Stream, peer: string, timed: AbortSignal) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const timed = AbortSignal.any([signal, AbortSignal.timeout(atOnceTimeoutMs)])
    const answers = this.#parts.membership.members().map(async (peer) => {
      const answer = await this.#ask(peer, timed, async (stream) => await question(stream, peer.id, timed))
      if (answer === undefined) throw new P2pfsError('missing', 'peer does not have the object')
      return answer
    })
    try {
      return await Promise.any(answers)
    } catch {
      signal.throwIfAborted()
      return undefined
    }
  }

  /** Asks the peer `first` first and silent ones last. @returns the first answer that is not undefined */
  async #askInTurn<T>(
    signal: AbortSignal,
    question: (stream: Stream, timed: AbortSignal) => Promise<T | undefined>,
    { first, mustAnswer = false }: { first?: string; mustAnswer?: boolean },
  ): Promise<T | undefined> {
    const failures: unknown[] = []
    const rank = (peer: Member): number => (peer.id === first ? 0 : peer.isSilent ? 2 : 1)
    for (const peer of this.#parts.membership.members().toSorted((a, b) => rank(a) - rank(b))) {
      const timed = AbortSignal.any([signal, AbortSignal.timeout(inTurnTimeoutMs)])
      const answer = await this.#ask(peer, timed, async (stream) => await question(stream, timed)).catch(
        (error: unknown) => void failures.push(error),
      )
      if (answer !== undefined) return answer
      signal.throwIfAborted()
    }
    // A member that breaks the protocol is not asked again: its answer is not waited for.
    const cause = failures.find((error) => !isP2pfsError(error, 'invalid'))
    if (mustAnswer && cause !== undefined)
      throw new P2pfsError('unavailable', 'a member of the region does not answer', { cause })
    return undefined
  }

  async #ask<T>(peer: Member, signal: AbortSignal, question: (stream: Stream) => Promise<T>): Promise<T> {
    const { host, membership, log } = this.#parts
    try {
      const answer = await question(await host.dialProtocol(peer.libp2pId, objectProtocol, { signal }))
      peer.answered()
      return answer
    } catch (error) {
      if (isP2pfsError(error, 'invalid')) membership.ban(peer, error)
      else log.debug('peer did not answer for an object', { error, peer: peer.id })
      throw error
    }
  }
}
