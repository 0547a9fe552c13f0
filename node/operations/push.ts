import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import type { PushRequest, PushResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import { asUsage } from '../control/usage.ts'
import type { ImageResolver } from '../images/resolver.ts'
import type { Publisher } from '../publish/publisher.ts'
import type { RawPusher } from '../publish/raw-pusher.ts'
import { parseReference, type RegistryReference } from '../registry/reference.ts'
import { withCaller, type ImageRequests } from './image-request.ts'

export interface PushParts {
  requests: ImageRequests
  resolver: Pick<ImageResolver, 'find' | 'add'>
  pusher: Pick<RawPusher, 'push'>
  publisher: Pick<Publisher, 'publish'>
  log: Log
}

/** `p2pfs push`: puts a raw image into a registry, with its index, so that other regions can mount it. */
export class PushOperation {
  readonly #parts: PushParts

  constructor(parts: PushParts) {
    this.#parts = parts
  }

  /**
   * @throws invalid for a target that is no tag in a registry; missing for an unknown image; unsupported for one that
   *   is not raw
   */
  async run(request: PushRequest, { signal, onProgress }: OperationOptions): Promise<PushResult> {
    const { requests, resolver, pusher, publisher, log } = this.#parts
    const { auth, ...image } = request
    const target = asUsage(() => withCaller(parseTarget(request.target), auth))
    const { reference, variant } = requests.parse({ ...image, format: 'raw' })
    const found = await resolver.find(reference, variant, { signal })
    if (found === undefined)
      throw new P2pfsError(
        reference.kind === 'local' ? 'missing' : 'unsupported',
        `neither this host nor its region has a raw image ${request.image} for ${variant.platform}; ` +
          'push takes images of p2pfs import --raw; others are copied between registries by skopeo, crane or oras',
      )
    const { manifest, record: source } = found
    const { record, compressedBytes } = await pusher.push(
      { manifest, platform: source.platform, rootfsDigest: source.rootfsDigest },
      target,
      { signal, onProgress: (progress) => onProgress({ step: 'push', ...progress }) },
    )
    const pushed = await resolver.add(record, { manifest, isUnverified: false })
    const published = await publisher.publish(pushed, {
      signal,
      caller: target.caller,
      onProgress: (progress) => onProgress({ step: 'publish', ...progress }),
    })
    const { reference: name, platform, manifestDigest, rootfsDigest: digest } = record
    log.info('raw image pushed', { image: name, source: source.reference, digest, compressedBytes })
    return {
      reference: name,
      platform,
      digest,
      manifestDigest,
      sizeBytes: manifest.sizeBytes!,
      compressedBytes,
      published,
    }
  }
}

/** @throws invalid */
function parseTarget(text: string): RegistryReference & { tag: string } {
  const target = parseReference(text)
  if (target.kind !== 'registry' || target.digest !== undefined || target.tag === undefined)
    throw new P2pfsError(
      'invalid',
      `an image is pushed to a tag in a registry, as host:5000/disks/app:v2, not to ${text}`,
    )
  return { ...target, tag: target.tag }
}
