import assert from 'node:assert/strict'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Descriptor } from '../../../node/registry/image-manifest.ts'
import type { ImageSource } from '../../../node/registry/image-source.ts'
import type { Reference } from '../../../node/registry/reference.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { createRandom } from '../random.ts'
import { readAll, signal } from './fault-client.ts'

export const types = {
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  index: 'application/vnd.oci.image.index.v1+json',
} as const

/** A descriptor as manifests hold it. */
export interface RawDescriptor {
  mediaType: string
  digest: string
  size: number
}

export function describe(bytes: Uint8Array | string, mediaType: string): RawDescriptor {
  const buffer = Buffer.from(bytes)
  return { mediaType, digest: digestOf(buffer), size: buffer.length }
}

/** A config of an image with one layer. */
export const configFor = (platform: object): string =>
  JSON.stringify({ ...platform, rootfs: { type: 'layers', diff_ids: [digestOf(Buffer.from('tar'))] } })

export const manifestOf = (configJson: string, more: object = {}): string =>
  JSON.stringify({
    schemaVersion: 2,
    mediaType: types.manifest,
    config: describe(configJson, types.config),
    layers: [describe(layer, types.layer)],
    ...more,
  })

export const indexOf = (manifests: readonly object[]): string =>
  JSON.stringify({ schemaVersion: 2, mediaType: types.index, manifests })

export const layer = createRandom(5).bytes(300_000)
export const config = configFor({ architecture: 'amd64', os: 'linux' })
/** An image for linux/amd64 with one layer. */
export const manifest = manifestOf(config)
export const layerDescriptor: Descriptor = { digest: digestOf(layer), mediaType: '', sizeBytes: layer.length }

/** Answers with what the image has, and 404 to anything else. `latest` is its tag, in any repository. */
export function answer(request: IncomingMessage, response: ServerResponse): void {
  const name = request.url?.split('?')[0]?.split('/').at(-1) ?? ''
  const body =
    name === 'latest' ? manifest : [manifest, config, layer].find((bytes) => describe(bytes, '').digest === name)
  if (body === undefined) response.writeHead(404).end()
  else response.end(body)
}

/** Checks that the reference is the image, and that its layer comes whole. */
export async function assertImage(source: ImageSource, reference: Reference): Promise<void> {
  const image = await source.resolve(reference, 'linux/amd64', { signal })
  assert.equal(image.manifest, manifest)
  assert.equal(image.config, config)
  assert.equal(image.manifestDigest, describe(manifest, '').digest)
  assert.deepEqual(await readAll(source.openLayer(reference, image.layers[0]!, { signal })), layer)
}
