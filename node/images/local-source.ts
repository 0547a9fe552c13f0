import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { tarOfDirectory } from '../rootfs/directory-tar.ts'
import { checkTar } from './not-a-tar.ts'
import { encodeImageManifest } from '../registry/image-manifest.ts'
import type { ResolvedImage } from '../registry/image-source.ts'

/** How much of a tar is read at once (bytes): large, for each piece costs a turn of the event loop. */
const readBytes = 256 * 1024

/**
 * Opens a directory or a tar as a layer.
 * @returns the tar, and its length where that is known
 * @throws missing, unsupported, unavailable; invalid for a file that is no tar
 */
export async function openLocalSource(
  path: string,
  { signal }: { signal: AbortSignal },
): Promise<{ bytes: AsyncIterable<Uint8Array>; sizeBytes: number | undefined }> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new P2pfsError(
      'missing',
      isMissing(cause) ? `there is no ${path}` : `cannot import ${path}: ${(cause as Error).message}`,
      { cause, path },
    )
  })
  if (found.isDirectory()) return { bytes: tarOfDirectory(path, { signal }), sizeBytes: undefined }
  if (found.isFile()) {
    await checkTar(path)
    return { bytes: createReadStream(path, { highWaterMark: readBytes, signal }), sizeBytes: found.size }
  }
  throw new P2pfsError('unsupported', `cannot import ${path}: neither a directory nor a file`, { path })
}

const isMissing = (cause: unknown): boolean => (cause as NodeJS.ErrnoException).code === 'ENOENT'

/** Makes the image of one layer as a registry would have it: config and manifest name the tar by its own digest. */
export function singleLayerImage(reference: string, platform: string, { diffId, tarBytes }: LayerIndex): ResolvedImage {
  const mediaType = 'application/vnd.oci.image.layer.v1.tar'
  return localImage(reference, platform, [{ diffId, sizeBytes: tarBytes, mediaType }])
}

/** Makes an image as a registry would have it, whose manifest names each layer by what it is uncompressed. */
export function localImage(
  reference: string,
  platform: string,
  layers: readonly { diffId: Digest; sizeBytes: number; mediaType: string }[],
): ResolvedImage {
  const config = imageConfig(
    platform,
    layers.map(({ diffId }) => diffId),
  )
  const manifest = encodeImageManifest(
    config,
    layers.map(({ diffId, sizeBytes, mediaType }) => ({ digest: diffId, sizeBytes, mediaType })),
  )
  return {
    reference,
    platform,
    manifestDigest: digestOf(Buffer.from(manifest)),
    manifest,
    config,
    layers: layers.map((layer) => ({ ...layer, digest: layer.diffId })),
  }
}

function imageConfig(platform: string, diffIds: readonly Digest[]): string {
  const [os = '', architecture = '', variant] = platform.split('/')
  return JSON.stringify({
    os,
    architecture,
    ...(variant === undefined ? {} : { variant }),
    config: {},
    rootfs: { type: 'layers', diff_ids: diffIds },
  })
}
