import { createCipheriv } from 'node:crypto'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { OciLayout } from '../../test/support/oci-layout.ts'
import { writeTar } from '../../test/support/tar-writer.ts'

const mebibyte = 2 ** 20
const tarBlockBytes = 512

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
  const empty = writeTar([{ path: 'model.safetensors', type: 'file', content: Buffer.alloc(0) }])
  const header = Buffer.from(empty.subarray(0, tarBlockBytes))
  header.write((mebibytes * mebibyte).toString(8).padStart(11, '0'), 124)
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148)
  const noise = createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16))
  await using file = await open(tar, 'w')
  await file.write(header)
  for (let i = 0; i < mebibytes; i++) await file.write(noise.update(Buffer.alloc(mebibyte)))
  await file.write(Buffer.alloc(2 * tarBlockBytes))
  const layout = await OciLayout.create(join(directory, `layout-${seed}`))
  await layout.addImage('model', [await layout.addLayer(tar, 'none')], {})
  return `oci:${layout.directory}:model`
}
