import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { ContentSharing } from '../../../node/model/content-sharing.ts'
import { ImageSource } from '../../../node/registry/image-source.ts'
import { localImages } from '../../../node/registry/local-images.ts'
import { mediaTypes, type Descriptor } from '../../../node/registry/image-manifest.ts'
import type { ImageStorage } from '../../../node/registry/image-storage.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { SharedStorage } from '../../../node/registry/shared-storage.ts'

const { signal } = new AbortController()
const reference = parseReference('registry.test/app:1')
const platform = { os: 'linux', architecture: 'amd64' }

function described(mediaType: string, text: string): Descriptor {
  return { mediaType, digest: digestOf(Buffer.from(text)), sizeBytes: Buffer.byteLength(text) }
}

/** A registry with an index, the manifest of its one image and the image's config. */
class Storage {
  readonly asked: string[] = []
  readonly #contents = new Map<Digest, string>()
  readonly #top: string

  constructor() {
    const put = (mediaType: string, content: unknown): { mediaType: string; digest: Digest; size: number } => {
      const text = JSON.stringify(content)
      const { digest, sizeBytes } = described(mediaType, text)
      this.#contents.set(digest, text)
      return { mediaType, digest, size: sizeBytes }
    }
    const config = put('application/vnd.oci.image.config.v1+json', {
      ...platform,
      rootfs: { type: 'layers', diff_ids: [] },
    })
    const manifest = put(mediaTypes.ociManifest, {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config,
      layers: [],
    })
    this.#top = JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.ociIndex,
      manifests: [{ ...manifest, platform }],
    })
  }

  readonly storage: ImageStorage = {
    ...localImages,
    manifest: async () => {
      this.asked.push('tag')
      return await Promise.resolve({ digest: digestOf(Buffer.from(this.#top)), json: this.#top })
    },
    manifestByDigest: async (_, { digest }) => {
      this.asked.push('manifest')
      return await Promise.resolve(this.#contents.get(digest)!)
    },
    blob: (_, { digest }) => this.#blob(digest),
  }

  async *#blob(digest: Digest): AsyncGenerator<Uint8Array> {
    this.asked.push('config')
    yield await Promise.resolve(Buffer.from(this.#contents.get(digest)!))
  }
}

/** One host reads, and all others get what it has read. */
function shared(): ContentSharing {
  const known = new Map<Digest, Promise<Uint8Array>>()
  return {
    get: async ({ digest }, read, { signal }) => {
      const got = known.get(digest) ?? read(signal)
      known.set(digest, got)
      return await got
    },
    ask: async () => await Promise.reject(new TypeError('it is content')),
  }
}

test('manifests and configs that digests name are read once for all; what a tag stands for is asked by each', async () => {
  const registry = new Storage()
  const sharing = shared()
  const hosts = [1, 2, 3].map(
    () => new ImageSource({ registry: registry.storage, layout: localImages, sharing, log: silentLog }),
  )
  const images = await Promise.all(hosts.map(async (host) => await host.resolve(reference, 'linux/amd64', { signal })))
  assert.deepEqual(images[1], images[0])
  assert.deepEqual(registry.asked.toSorted(), ['config', 'manifest', 'tag', 'tag', 'tag'])
})

test('a manifest that is longer than manifests may be is refused, whoever has it', async () => {
  const descriptor = { ...described(mediaTypes.ociManifest, '{}'), sizeBytes: 5 * 1024 * 1024 }
  const storage = new SharedStorage(new Storage().storage, {
    ...shared(),
    get: async () => await Promise.resolve(Buffer.from('{}')),
  })
  await assert.rejects(storage.manifestByDigest(reference, descriptor, { signal }), { code: 'invalid' })
})

test('a manifest that is not UTF-8 is not given to others: they would ban whoever sends other bytes', async () => {
  const bytes = Buffer.from('{"a":"\xff"}', 'latin1')
  const descriptor = { mediaType: mediaTypes.ociManifest, digest: digestOf(bytes), sizeBytes: bytes.length }
  const storage = new SharedStorage(
    { ...new Storage().storage, manifestByDigest: async () => await Promise.resolve(bytes.toString()) },
    shared(),
  )
  await assert.rejects(storage.manifestByDigest(reference, descriptor, { signal }), { code: 'invalid' })
})
