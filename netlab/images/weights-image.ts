import { createCipheriv } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { OciLayout, type LayerCompression } from '../../test/support/oci-layout.ts'
import { writeTar } from '../../test/support/tar-writer.ts'
import type { LabImage } from './lab-image.ts'

const mebibyte = 2 ** 20
const tarBlockBytes = 512
/** The fastest level, as people use it for gigabytes of weights, which become no smaller by a higher one. */
const gzipLevel = 1

/**
 * An image of one file, `model.safetensors`, that nothing can compress, in an OCI layout.
 * @param options `seed`: images of different seeds have no chunk in common
 * @returns its reference
 */
export async function writeWeightsImage(
  directory: string,
  { mebibytes, seed }: { mebibytes: number; seed: number },
): Promise<string> {
  const tar = join(directory, `weights-${seed}.tar`)
  await writeWeightsTar(tar, { mebibytes, seed, asFloats: false })
  const layout = await OciLayout.create(join(directory, `layout-${seed}`))
  await layout.addImage('model', [await layout.addLayer(tar, 'none')], {})
  return `oci:${layout.directory}:model`
}

/** As {@link writeWeightsImage}, but the file compresses as 16-bit floats do: to about 0.7. */
export async function writeWeightsLayout(
  directory: string,
  { mebibytes, compression }: { mebibytes: number; compression: LayerCompression },
): Promise<LabImage> {
  const tar = join(directory, `weights-${compression}.tar`)
  await writeWeightsTar(tar, { mebibytes, seed: 1, asFloats: true })
  const layout = await OciLayout.create(join(directory, `layout-${compression}`))
  await layout.addImage('model', [await layout.addLayer(tar, compression, { gzipLevel })], {})
  await rm(tar)
  return { layoutDirectory: layout.directory, tag: 'model' }
}

async function writeWeightsTar(
  path: string,
  { mebibytes, seed, asFloats }: { mebibytes: number; seed: number; asFloats: boolean },
): Promise<void> {
  const empty = writeTar([{ path: 'model.safetensors', type: 'file', content: Buffer.alloc(0) }])
  const header = Buffer.from(empty.subarray(0, tarBlockBytes))
  header.write((mebibytes * mebibyte).toString(8).padStart(11, '0'), 124)
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148)
  const noise = createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16))
  await using file = await open(path, 'w')
  await file.write(header)
  for (let i = 0; i < mebibytes; i++) {
    const bytes = noise.update(Buffer.alloc(mebibyte))
    if (asFloats) for (let high = 1; high < mebibyte; high += 2) bytes[high] = signAndExponent(bytes[high]!)
    await file.write(bytes)
  }
  await file.write(Buffer.alloc(2 * tarBlockBytes))
}

/** The high byte of a 16-bit float near zero, of a byte at random: one of a few, the smaller the rarer. */
function signAndExponent(noise: number): number {
  return ((noise & 0x80) | 0x3c) - (Math.clz32((noise & 0x7f) | 1) - 25)
}
