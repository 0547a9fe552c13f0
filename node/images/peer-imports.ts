import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { Log } from '../base/log.ts'
import type { LayerReader } from '../layers/layer-reader.ts'
import type { Membership } from '../peers/membership.ts'
import type { FoundRootfs } from '../model/image.ts'
import { normalizePlatform } from '../model/platform.ts'
import type { ImageSource, ResolvedImage } from '../registry/image-source.ts'
import { formatReference, parseReference, type RegistryReference } from '../registry/reference.ts'
import type { Room } from '../store/disk-room.ts'
import { maxNamedRefusals, maxPlatformLength, peerImportLimits, type PeerImportLimits } from './peer-import-limits.ts'
import { PeerQuota } from './peer-quota.ts'
import { answerMs, RegistryLookup, type RegistryLookupParts } from './registry-lookup.ts'
import type { ImageResolver } from './resolver.ts'
import { importOf, type RunningImports, type TaskOptions, type WaitOptions } from './running-imports.ts'

/**
 * The registries that this host imports from for peers. `listed`: those that its operator has named, by credentials, by a
 * mirror, or as a peer registry.
 */
export const peerImportPolicies = ['none', 'listed', 'all'] as const
export type PeerImportPolicy = (typeof peerImportPolicies)[number]

export interface PeerImportsParts extends RegistryLookupParts {
  /** Sends its requests for others (see `HttpRegistryOptions.forOthers`). */
  registry: RegistryLookupParts['registry'] & Pick<ImageSource, 'isNamed'>
  /** Reads layers out of that registry. */
  reader: Pick<LayerReader, 'readShared'>
  resolver: Pick<ImageResolver, 'findOnHost' | 'build'>
  imports: Pick<RunningImports, 'run' | 'join'>
  /** The members, this one among them, in the order in which they are to import the image. */
  membership: Pick<Membership, 'byResponsibility'>
  /** Peer id of this host. */
  own: string
  /** How much room the disk of the chunks has. */
  room: () => Promise<Room>
  log: Log
}

export interface PeerImportsOptions {
  policy: PeerImportPolicy
  limits?: PeerImportLimits
  /** The clock (ms). */
  now?: () => number
}

/**
 * Imports images for peers: this host as their steward. It is work that others choose, with this host's credentials,
 * network and disk. So the operator says from where, and all of it is bounded. A refusal tells nothing: not whether the
 * image or the registry exists, nor what this host has or may do.
 */
export class PeerImports {
  readonly #parts: PeerImportsParts
  readonly #policy: PeerImportPolicy
  readonly #limits: PeerImportLimits
  readonly #lookup: RegistryLookup
  readonly #quota: PeerQuota
  /** Registries that the log has named as refused. */
  readonly #namedRefusals = new Set<string>()

  constructor(parts: PeerImportsParts, { policy, limits = peerImportLimits, now }: PeerImportsOptions) {
    this.#parts = parts
    this.#policy = policy
    this.#limits = limits
    this.#quota = new PeerQuota({ now }, limits)
    const { catalog, registry, log } = parts
    // The reference is text of a peer until the registry has confirmed it, so its messages stay below info.
    this.#lookup = new RegistryLookup({ catalog, registry, log: { ...log, info: log.debug } })
  }

  /**
   * Imports an image for a peer, or lets the peer wait for an import that is under way here.
   * 1. The request is within the bounds of its peer.
   * 2. Where this host imports the image for itself, or for a caller with credentials of his own, the peer waits for that: it
   *    has had the image described by the registry, and could have the record from here a moment later.
   * 3. The registry is one that the operator allows. What is here is not looked at before that, so that a refusal takes the
   *    same time whatever this host has.
   * 4. The record may be here.
   * 5. The registry says that the reference stands for the manifest that the peer names.
   * 6. The layers are read within bounds of bytes, time and disk; the work ends with the last who waits for it.
   * @throws busy where a bound of requests or imports is reached; invalid where the image is the one that the peer
   * names, and malformed; denied for whatever else; the signal's reason
   */
  async importFor(
    { manifestDigest, ...name }: ImageName & { manifestDigest: Digest },
    { peer, ...options }: WaitOptions & { peer: string },
  ): Promise<ImageRecord> {
    const { imports, log } = this.#parts
    try {
      const leave = this.#quota.enter(peer)
      try {
        const joined = await this.#join({ ...name, manifestDigest }, { ...options, peer })
        if (joined !== undefined) return joined
        const { reference, stored } = await this.#look(name)
        if (stored?.record.manifestDigest === manifestDigest) return stored.record
        log.debug('peer waits for an import here', { image: name.reference, manifest: manifestDigest, peer })
        const { record } = await imports.run(
          importOf(name, manifestDigest),
          { ...options, peer },
          async (options) => await this.#import(reference, { ...name, manifestDigest }, options),
        )
        // The registry has confirmed the name, which is the peer's text before.
        log.info('image has been imported for a peer', { image: name.reference, manifest: manifestDigest, peer })
        return record
      } finally {
        leave()
      }
    } catch (error) {
      options.signal.throwIfAborted()
      log.debug('import for a peer is refused', { error, manifest: manifestDigest, peer })
      throw refusalOf(error)
    }
  }

  /**
   * Whether this host reads a registry that its operator has named for an image that a peer wants here, as for imports. A
   * registry that is only public is not read: what seeds read has the credentials and the connections of this host.
   */
  async readsFor(reference: string): Promise<boolean> {
    const { registry } = this.#parts
    return this.#policy !== 'none' && (await registry.isNamed(parseReference(reference)))
  }

  async #join(
    { manifestDigest, ...name }: ImageName & { manifestDigest: Digest },
    options: WaitOptions & { peer: string },
  ): Promise<ImageRecord | undefined> {
    const { imports, membership, own } = this.#parts
    if (this.#policy === 'none') return undefined
    const order = membership.byResponsibility(manifestDigest)
    const isBefore = order.indexOf(own) < order.indexOf(options.peer)
    return (await imports.join(importOf(name, manifestDigest), { ...options, isBefore }))?.record
  }

  /** @throws denied for whatever goes wrong */
  async #look(name: ImageName): Promise<{ reference: RegistryReference; stored: FoundRootfs | undefined }> {
    try {
      const reference = await this.#allowed(name)
      return { reference, stored: await this.#parts.resolver.findOnHost(name) }
    } catch (cause) {
      throw new P2pfsError('denied', 'the image is not imported for peers', { cause })
    }
  }

  /** @throws denied, invalid for what is not imported for peers */
  async #allowed({ reference: text, platform }: ImageName): Promise<RegistryReference> {
    const reference = parseReference(text)
    if (reference.kind !== 'registry' || formatReference(reference) !== text)
      throw new P2pfsError('denied', 'only images of registries are imported for peers')
    if (platform.length > maxPlatformLength) throw new P2pfsError('denied', 'the platform is too long')
    normalizePlatform(platform)
    const isNamed = await this.#parts.registry.isNamed(reference)
    if (this.#policy === 'all' || (this.#policy === 'listed' && isNamed)) return reference
    if (this.#policy === 'listed') this.#nameRefusal(reference.registry)
    throw new P2pfsError('denied', `${reference.registry} is not imported from for peers`)
  }

  /** Once for each registry. It is a name that a peer gives, of letters, digits and dots. */
  #nameRefusal(registry: string): void {
    const named = this.#namedRefusals
    if (named.has(registry) || named.size >= maxNamedRefusals) return
    named.add(registry)
    this.#parts.log.info(
      'peer asks for an import from a registry that this host is not to import from for others; --peer-registry, ' +
        'credentials, a mirror or --import-for-peers all would allow it',
      { registry },
    )
  }

  async #import(
    reference: RegistryReference,
    wanted: ImageName & { manifestDigest: Digest },
    options: TaskOptions,
  ): Promise<FoundRootfs> {
    const { resolver, reader } = this.#parts
    const { importMs, roomIntervalMs } = this.#limits
    const ended = new AbortController()
    const signal = AbortSignal.any([options.signal, ended.signal])
    const end = (error: unknown): void => ended.abort(error)
    const timer = setTimeout(end, importMs, new P2pfsError('denied', 'an import for peers takes too long'))
    const watch = setInterval(() => void this.#checkRoom().catch(end), roomIntervalMs)
    let isTheImage = false
    try {
      await this.#checkRoom()
      const image = await this.#describe(reference, wanted, signal)
      isTheImage = true
      return await resolver.build(reference, image, wanted.format, { ...options, signal, reader })
    } catch (error) {
      options.signal.throwIfAborted()
      if (isTheImage && isP2pfsError(error, 'invalid')) throw error
      throw new P2pfsError('denied', 'the import for peers has failed', { cause: error })
    } finally {
      clearTimeout(timer)
      clearInterval(watch)
    }
  }

  /** The image as the registry has it. @throws denied where it is another one, or too large; as the registry does */
  async #describe(
    reference: RegistryReference,
    { platform, manifestDigest }: ImageName & { manifestDigest: Digest },
    signal: AbortSignal,
  ): Promise<ResolvedImage> {
    const image = await this.#lookup.resolve(reference, platform, { signal, answerMs })
    if (image.manifestDigest !== manifestDigest)
      throw new P2pfsError('denied', 'the reference stands for another image here', { digest: image.manifestDigest })
    const { imageBytes } = this.#limits
    const bytes = image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    if (bytes > imageBytes)
      throw new P2pfsError('denied', `the image has ${bytes} bytes; ${imageBytes} is the most for peers`)
    return image
  }

  /**
   * @throws denied where there is too little room, caused by a full disk: so the import leaves nothing; the codes of
   * the disk
   */
  async #checkRoom(): Promise<void> {
    const { freeShare, freeBytes: mostFreeBytes } = this.#limits
    const { freeBytes, sizeBytes } = await this.#parts.room()
    const floorBytes = Math.min(mostFreeBytes, freeShare * sizeBytes)
    if (freeBytes >= floorBytes) return
    const cause = Object.assign(new Error('the rest of the disk is for this host itself'), { code: 'ENOSPC' })
    throw new P2pfsError('denied', 'too little room on the disk for imports for peers', {
      cause,
      freeBytes,
      floorBytes,
    })
  }
}

/** All that a peer is told. */
function refusalOf(error: unknown): P2pfsError {
  if (isP2pfsError(error, 'busy'))
    return new P2pfsError('busy', 'this host runs as many imports for peers as it takes', { cause: error })
  if (isP2pfsError(error, 'invalid')) return new P2pfsError('invalid', 'the image is malformed', { cause: error })
  return new P2pfsError('denied', 'this host does not import the image for peers', { cause: error })
}
