import { createHash, type Hash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip, createZstdCompress } from 'node:zlib'

export type LayerCompression = 'gzip' | 'zstd' | 'none'

/** OCI image-spec, media-types.md. */
const layerMediaTypes: Record<LayerCompression, string> = {
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  none: 'application/vnd.oci.image.layer.v1.tar',
}

/** The level that builders use. */
const builderGzipLevel = 6

interface Descriptor {
  mediaType: string
  digest: string
  size: number
}

export interface StoredLayer {
  descriptor: Descriptor
  /** Digest of the uncompressed tar. */
  diffId: string
}

/** Writes images, one after the other, to an OCI image layout (image-spec, image-layout.md). */
export class OciLayout {
  readonly directory: string
  readonly #manifests: (Descriptor & { annotations: Record<string, string> })[] = []

  private constructor(directory: string) {
    this.directory = directory
  }

  static async create(directory: string): Promise<OciLayout> {
    await mkdir(join(directory, 'blobs', 'sha256'), { recursive: true })
    await writeFile(join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
    return new OciLayout(directory)
  }

  /** Stores a tar as a layer. */
  async addLayer(
    tarPath: string,
    compression: LayerCompression,
    { signal, gzipLevel = builderGzipLevel }: { signal?: AbortSignal; gzipLevel?: number } = {},
  ): Promise<StoredLayer> {
    const partial = join(this.directory, `partial-${compression}`)
    const diffHash = createHash('sha256')
    const blobHash = createHash('sha256')
    const compressor = {
      gzip: () => createGzip({ level: gzipLevel }),
      zstd: createZstdCompress,
      none: () => new PassThrough(),
    }
    await pipeline(
      [createReadStream(tarPath), tap(diffHash), compressor[compression](), tap(blobHash), createWriteStream(partial)],
      signal === undefined ? {} : { signal },
    )
    const { size } = await stat(partial)
    const hex = blobHash.digest('hex')
    await rename(partial, this.#blob(hex))
    return {
      descriptor: { mediaType: layerMediaTypes[compression], digest: `sha256:${hex}`, size },
      diffId: `sha256:${diffHash.digest('hex')}`,
    }
  }

  /** Stores an image of these layers, lowest first, under `tag`. */
  async addImage(tag: string, layers: readonly StoredLayer[], config: Record<string, unknown>): Promise<void> {
    const configDescriptor = await this.#addJson('application/vnd.oci.image.config.v1+json', {
      architecture: 'amd64',
      os: 'linux',
      config,
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    })
    const mediaType = 'application/vnd.oci.image.manifest.v1+json'
    const manifest = await this.#addJson(mediaType, {
      schemaVersion: 2,
      mediaType,
      config: configDescriptor,
      layers: layers.map(({ descriptor }) => descriptor),
    })
    this.#manifests.push({ ...manifest, annotations: { 'org.opencontainers.image.ref.name': tag } })
    await writeFile(
      join(this.directory, 'index.json'),
      JSON.stringify({ schemaVersion: 2, manifests: this.#manifests }),
    )
  }

  async #addJson(mediaType: string, value: unknown): Promise<Descriptor> {
    const bytes = Buffer.from(JSON.stringify(value))
    const hex = createHash('sha256').update(bytes).digest('hex')
    await writeFile(this.#blob(hex), bytes)
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length }
  }

  #blob(hex: string): string {
    return join(this.directory, 'blobs', 'sha256', hex)
  }
}

function tap(hash: Hash): Transform {
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk)
      done(undefined, chunk)
    },
  })
}
