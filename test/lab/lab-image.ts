import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { oddImage } from '../../netlab/images/images.ts'

/** Copies the lab's small image, as an OCI layout, for one test. @returns its reference */
export async function copyOddImage(directory: string): Promise<string> {
  const image = await oddImage()
  cpSync(image.layoutDirectory, join(directory, 'image'), { recursive: true })
  return `oci:${join(directory, 'image')}:${image.tag}`
}
