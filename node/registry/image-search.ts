import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { checkSize, maxConfigBytes, parseManifest, type Descriptor } from './image-manifest.ts'
import type { ImageStorage, StoredManifest } from './image-storage.ts'
import { candidatesFor, suits } from './index-candidates.ts'
import { formatReference, type Reference } from './reference.ts'

/** Levels of indexes that name one another; nobody makes more than two. */
const maxIndexDepth = 3
/** Manifests of indexes that are read to find one image: most indexes need one. */
const maxManifests = 16

export interface SearchOptions {
  reference: Reference
  platform: string
  signal: AbortSignal
  /** Called for each manifest that comes. */
  onAnswer: () => void
}

/** An image that was found below a reference, perhaps in an index. */
export interface FoundImage extends StoredManifest {
  digest: Digest
  configDescriptor: Descriptor
  isArtifact: boolean
  /** An index names the platform of the image. */
  isNamed: boolean
}

/** A search for the image of a platform: in an index, in indexes within it, and past what only looks like an image. */
export class ImageSearch {
  readonly #storage: Pick<ImageStorage, 'manifestByDigest' | 'blob'>
  readonly #options: SearchOptions
  #manifestsLeft = maxManifests

  constructor({ storage }: { storage: Pick<ImageStorage, 'manifestByDigest' | 'blob'> }, options: SearchOptions) {
    this.#storage = storage
    this.#options = options
  }

  /**
   * The image for the platform below a manifest or index: itself, or the first that fits.
   * @throws missing; invalid for indexes without end; the codes of the storage
   */
  async find({ digest, json }: StoredManifest, depth = 0): Promise<FoundImage> {
    const { reference, platform, signal, onAnswer } = this.#options
    const name = formatReference(reference)
    const manifest = parseManifest(json, `manifest of ${name}`)
    if (manifest.kind === 'image')
      return { digest, json, configDescriptor: manifest.config, isArtifact: manifest.isArtifact, isNamed: false }
    if (depth === maxIndexDepth)
      throw new P2pfsError('invalid', `${name} is an index in more than ${maxIndexDepth} others`)
    const entries = candidatesFor(manifest.entries, platform, name)
    for (const entry of entries) {
      if (this.#manifestsLeft-- === 0)
        throw new P2pfsError(
          'invalid',
          `${name} has no image for ${platform} among its first ${maxManifests} manifests`,
        )
      const child = await this.#storage.manifestByDigest(reference, entry, { signal })
      onAnswer()
      try {
        const below = await this.find({ digest: entry.digest, json: child }, depth + 1)
        const found = { ...below, isNamed: below.isNamed || entry.platform !== undefined }
        // A single candidate is taken for what it is, and refused with what is wrong with it.
        if (entries.length === 1 || (await this.#fits(found))) return found
      } catch (error) {
        if (entries.length === 1 || !isP2pfsError(error, 'missing')) throw error
      }
    }
    throw new P2pfsError('missing', `${name} has no image for ${platform}: give --platform one that it has`)
  }

  /** The config of an image, JSON. @throws invalid for one that is too long; the codes of the storage */
  async config({ configDescriptor }: FoundImage): Promise<string> {
    const { reference, signal } = this.#options
    checkSize(configDescriptor, maxConfigBytes, 'image config')
    const pieces: Uint8Array[] = []
    for await (const piece of this.#storage.blob(reference, configDescriptor, { signal })) pieces.push(piece)
    return Buffer.concat(pieces).toString()
  }

  /** Whether an entry of an index is an image for the platform, by what it says itself. */
  async #fits(found: FoundImage): Promise<boolean> {
    if (found.isArtifact) return false
    return found.isNamed || suits(await this.config(found), this.#options.platform)
  }
}
