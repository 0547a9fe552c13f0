import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { Log } from '../base/log.ts'
import { formatReference, parseReference } from '../registry/reference.ts'
import { answerMs, RegistryLookup, type RegistryLookupParts } from './registry-lookup.ts'
import type { ImageResolver } from './resolver.ts'
import { importOf, type RunningImports, type WaitOptions } from './running-imports.ts'

export interface PeerImportsParts extends RegistryLookupParts {
  resolver: Pick<ImageResolver, 'findOnHost' | 'build'>
  imports: Pick<RunningImports, 'run'>
  log: Log
}

/** Imports images for peers: this host as their steward. */
export class PeerImports {
  readonly #parts: PeerImportsParts
  readonly #lookup: RegistryLookup

  constructor(parts: PeerImportsParts) {
    this.#parts = parts
    this.#lookup = new RegistryLookup(parts)
  }

  /**
   * Imports an image for a peer, or lets the peer wait for an import that is under way here.
   * @throws denied for images that are in no registry; conflict if the reference stands for another image here; busy;
   * what the registry client and the import throw
   */
  async importFor(
    { manifestDigest, ...name }: ImageName & { manifestDigest: Digest },
    { peer, ...options }: WaitOptions & { peer: string },
  ): Promise<ImageRecord> {
    const { resolver, imports, log } = this.#parts
    const reference = parseReference(name.reference)
    if (reference.kind !== 'registry' || formatReference(reference) !== name.reference)
      throw new P2pfsError('denied', 'only images of registries are imported for peers')
    const stored = await resolver.findOnHost(name)
    if (stored?.record.manifestDigest === manifestDigest) return stored.record
    log.info('peer waits for an import here', { image: name.reference, manifest: manifestDigest, peer })
    const { record } = await imports.run(importOf(name, manifestDigest), options, async (options) => {
      const image = await this.#lookup.resolve(reference, name.platform, { signal: options.signal, answerMs })
      if (image.manifestDigest !== manifestDigest)
        throw new P2pfsError('conflict', `${name.reference} stands for another image here`, {
          digest: image.manifestDigest,
        })
      return await resolver.build(reference, image, name.format, options)
    })
    return record
  }
}
