import { createCipheriv } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { OciLayout, type StoredLayer } from '../../test/support/oci-layout.ts'
import { writeTar } from '../../test/support/tar-writer.ts'

/** An image of two layers, each with one file; and files with the same bytes, to compare with. */
export interface DiskImage {
  reference: string
  files: { path: string; truth: string; sizeBytes: number }[]
}

export interface DiskImagesOptions {
  images: number
  /** Layers that images share: one of them is below each image. */
  bases: number
  baseBytes: number
  /** The size of each image's own layer. */
  ownBytes: number
}

/** Fast to compress, and random enough that nothing is smaller for it. */
const gzipLevel = 1

/** Makes images in an OCI layout below the directory. */
export async function makeDiskImages(
  directory: string,
  { images, bases, baseBytes, ownBytes }: DiskImagesOptions,
): Promise<DiskImage[]> {
  const layout = await OciLayout.create(join(directory, 'layout'))
  const truths = join(directory, 'truth')
  await mkdir(truths)
  const made = new Map<string, { layer: StoredLayer; file: DiskImage['files'][number] }>()
  const layerOf = async (name: string, path: string, sizeBytes: number): Promise<StoredLayer> => {
    const content = bytesOf(name, sizeBytes)
    const truth = join(truths, name)
    await writeFile(truth, content)
    const tar = join(directory, 'layer.tar')
    await writeFile(tar, writeTar([{ path, type: 'file', content }]))
    const layer = await layout.addLayer(tar, 'gzip', { gzipLevel })
    await rm(tar)
    made.set(name, { layer, file: { path, truth, sizeBytes } })
    return layer
  }
  for (let i = 0; i < bases; i++) await layerOf(`base-${i}`, 'base', baseBytes)
  const all: DiskImage[] = []
  for (let i = 0; i < images; i++) {
    const own = await layerOf(`own-${i}`, 'own', ownBytes)
    const base = made.get(`base-${i % bases}`)!
    await layout.addImage(String(i), [base.layer, own], {})
    all.push({ reference: `oci:${layout.directory}:${i}`, files: [base.file, made.get(`own-${i}`)!.file] })
  }
  return all
}

/** Bytes that depend on the name alone. */
function bytesOf(name: string, sizeBytes: number): Buffer {
  const key = Buffer.alloc(16, name)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes))
}
