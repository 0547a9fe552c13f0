import type { Stream } from '@libp2p/interface'
import type { BlobMap } from '../../../protocol/blob-map.ts'
import type { BootProfile, ProfileSubject } from '../../../protocol/boot-profile.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../../protocol/image-record.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { Log } from '../../base/log.ts'
import { askBlobMap, askImage, askImporting, askLayer, askProfile, askRootfs } from './exchange.ts'
import type { Member } from '../peer.ts'

/** A peer may take this long to answer for an object, milliseconds: the answer is in its memory or catalog. */
const imageTimeoutMs = 1_000
const objectTimeoutMs = 30_000
const profileTimeoutMs = 2_000
/** Members that are asked for a boot profile. */
const maxAskedForProfile = 8

export interface RegionObjectsParts {
  members: () => Member[]
  /** Opens a stream of the object protocol. */
  open: (peer: Member, signal: AbortSignal) => Promise<Stream>
  /** Cuts off a peer that breaks the protocol. */
  ban: (peer: Member, error: P2pfsError) => void
  log: Log
}

/** What the members of the region know: records of images, metadata of their layers, boot profiles. */
export class RegionObjects {
  readonly #parts: RegionObjectsParts

  constructor(parts: RegionObjectsParts) {
    this.#parts = parts
  }

  /** A member that is importing the image with this manifest; all are asked at once. */
  async findImport(manifestDigest: Digest, { signal }: { signal: AbortSignal }): Promise<string | undefined> {
    return await this.#askAll(signal, async (stream, peer, bounded) =>
      (await askImporting(stream, manifestDigest, bounded)) ? peer : undefined,
    )
  }

  /** Asks all members at once; the first wins whose answer is of use. @param isOfUse all are where not given */
  async findImage(
    name: ImageName,
    { signal, isOfUse = () => true }: { signal: AbortSignal; isOfUse?: (record: ImageRecord, peer: string) => boolean },
  ): Promise<{ record: ImageRecord; peer: string } | undefined> {
    return await this.#askAll(signal, async (stream, peer, bounded) => {
      const record = await askImage(stream, name, bounded)
      return record === undefined || !isOfUse(record, peer) ? undefined : { record, peer }
    })
  }

  /** Asks the members in turn, the one that should have it first. @returns undefined where nobody has it */
  async fetchRootfs(
    digest: Digest,
    { signal, first }: { signal: AbortSignal; first?: string },
  ): Promise<RootfsManifest | undefined> {
    const question = async (stream: Stream, bounded: AbortSignal): Promise<RootfsManifest | undefined> =>
      await askRootfs(stream, digest, bounded)
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
    const question = async (stream: Stream, bounded: AbortSignal): Promise<LayerIndex | undefined> =>
      await askLayer(stream, diffId, bounded)
    return await this.#askInTurn(signal, question, { mustAnswer })
  }

  /** As {@link fetchLayerIndex}. */
  async fetchBlobMap(
    digest: Digest,
    { signal, mustAnswer = false }: { signal: AbortSignal; mustAnswer?: boolean },
  ): Promise<BlobMap | undefined> {
    const question = async (stream: Stream, bounded: AbortSignal): Promise<BlobMap | undefined> =>
      await askBlobMap(stream, digest, bounded)
    return await this.#askInTurn(signal, question, { mustAnswer })
  }

  /**
   * Asks some members at once, first of all those that know one of the regions `tables`.
   * @returns an answer for each, in the order in which they were asked; none rejects
   */
  askProfiles(
    subject: ProfileSubject,
    tables: readonly Digest[],
    { signal }: { signal: AbortSignal },
  ): Promise<BootProfile | undefined>[] {
    const knows = ({ holdings }: Member): number => (tables.some((table) => holdings.knows(table)) ? 0 : 1)
    const asked = this.#parts
      .members()
      .toSorted((one, other) => knows(one) - knows(other))
      .slice(0, maxAskedForProfile)
    return asked.map(async (peer) => {
      const bounded = AbortSignal.any([signal, AbortSignal.timeout(profileTimeoutMs)])
      return await this.#ask(peer, bounded, async (stream) => await askProfile(stream, subject, bounded)).catch(
        () => undefined,
      )
    })
  }

  /** The first answer that is not undefined. */
  async #askAll<T>(
    signal: AbortSignal,
    question: (stream: Stream, peer: string, signal: AbortSignal) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(imageTimeoutMs)])
    const answers = this.#parts.members().map(async (peer) => {
      const answer = await this.#ask(
        peer,
        bounded,
        async (stream) => await question(stream, peer.id.toString(), bounded),
      )
      if (answer === undefined) throw new P2pfsError('missing', 'peer does not know')
      return answer
    })
    try {
      return await Promise.any(answers)
    } catch {
      signal.throwIfAborted()
      return undefined
    }
  }

  async #askInTurn<T>(
    signal: AbortSignal,
    question: (stream: Stream, signal: AbortSignal) => Promise<T | undefined>,
    { first, mustAnswer = false }: { first?: string; mustAnswer?: boolean },
  ): Promise<T | undefined> {
    const failures: unknown[] = []
    const turn = (peer: Member): number => (peer.id.toString() === first ? 0 : peer.isSilent ? 2 : 1)
    for (const peer of this.#parts.members().toSorted((a, b) => turn(a) - turn(b))) {
      const bounded = AbortSignal.any([signal, AbortSignal.timeout(objectTimeoutMs)])
      const answer = await this.#ask(peer, bounded, async (stream) => await question(stream, bounded)).catch(
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
    try {
      const stream = await this.#parts.open(peer, signal)
      const answer = await question(stream)
      peer.silentAt = -Infinity
      return answer
    } catch (error) {
      if (isP2pfsError(error, 'invalid')) this.#parts.ban(peer, error)
      else this.#parts.log.debug('peer does not answer for an object', { error, peer: peer.id.toString() })
      throw error
    }
  }
}
