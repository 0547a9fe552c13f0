import { digestOf } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ContentSharing } from '../model/content-sharing.ts'
import { checkSize, maxManifestBytes, type Descriptor } from './image-manifest.ts'
import type { ImageStorage, ReadBlobOptions } from './image-storage.ts'
import type { Reference } from './reference.ts'

/**
 * A storage of which hosts that need the same manifests and configs at once read each once. A digest names them, so it does not
 * matter who has read them; what a tag names, and who may read it, each asks the registry.
 */
export class SharedStorage {
  readonly #storage: Pick<ImageStorage, 'manifestByDigest' | 'blob'>
  readonly #sharing: ContentSharing

  constructor(storage: Pick<ImageStorage, 'manifestByDigest' | 'blob'>, sharing: ContentSharing) {
    this.#storage = storage
    this.#sharing = sharing
  }

  /** See {@link ImageStorage.manifestByDigest}. @throws invalid also where it is not UTF-8 */
  async manifestByDigest(
    reference: Reference,
    descriptor: Descriptor,
    { signal }: { signal: AbortSignal },
  ): Promise<string> {
    checkSize(descriptor, maxManifestBytes, 'manifest')
    const read = async (signal: AbortSignal): Promise<Uint8Array> =>
      manifestBytes(await this.#storage.manifestByDigest(reference, descriptor, { signal }), descriptor)
    return Buffer.from(await this.#sharing.get(descriptor, read, { signal })).toString()
  }

  /** A small blob in one piece: see {@link ImageStorage.blob}. */
  async *blob(
    reference: Reference,
    descriptor: Descriptor,
    { signal, ...options }: ReadBlobOptions,
  ): AsyncGenerator<Uint8Array> {
    const read = async (signal: AbortSignal): Promise<Uint8Array> => {
      const pieces: Uint8Array[] = []
      for await (const piece of this.#storage.blob(reference, descriptor, { ...options, signal })) pieces.push(piece)
      return Buffer.concat(pieces)
    }
    yield await this.#sharing.get(descriptor, read, { signal })
  }
}

/** A manifest as it is given to other hosts. @throws invalid where it was not UTF-8, as JSON is: its digest is another one then */
export function manifestBytes(json: string, { digest }: Pick<Descriptor, 'digest'>): Uint8Array {
  const bytes = Buffer.from(json)
  if (digestOf(bytes) !== digest) throw new P2pfsError('invalid', `manifest ${digest} is not UTF-8`, { digest })
  return bytes
}
