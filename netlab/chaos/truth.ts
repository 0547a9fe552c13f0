import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { LabHost } from '../hosts/lab-host.ts'
import type { NodeProcess } from '../hosts/node-process.ts'
import { readTree, type Tree } from '../images/directory-tree.ts'
import { debianImages, oddImages } from '../images/images.ts'
import { unpackWithUmoci, type LabImage } from '../images/lab-image.ts'
import type { Registry } from '../registry/registry.ts'

export const formats = ['ext4', 'erofs'] as const
export type Format = (typeof formats)[number]

/** An image, and the truth about its bytes. */
export interface TrueImage {
  name: string
  reference: string
  /** The tree that umoci unpacks. */
  directory: string
  tree: Tree
  /** Paths of the regular files that are not empty; Latin-1, as in {@link Tree}. */
  files: string[]
  /** Copies of the drives, made while nothing was wrong. */
  drives: Record<Format, string>
  driveBytes: Record<Format, number>
}

/** The images of a run: hand-made ones of a few megabytes, and one of real packages unless the run is small. */
export async function chaosImages({ isSmall }: { isSmall: boolean }): Promise<LabImage[]> {
  const { lower, both } = await oddImages()
  return isSmall ? [lower, both] : [lower, both, (await debianImages()).packages]
}

/** Seeds the images on a host and records their bytes. No fault may have begun. */
export async function recordTruth(
  images: readonly LabImage[],
  { registry, node, directory }: { registry: Registry; node: NodeProcess; directory: string },
): Promise<TrueImage[]> {
  await mkdir(directory)
  const recorded: TrueImage[] = []
  for (const image of images) {
    const name = image.tag
    const reference = await registry.push(image, `lab/${name}:1`)
    const unpacked = await unpackWithUmoci(image, join(directory, `${name}-bundle`))
    const tree = await readTree(unpacked)
    const isFile = ([, { type, sizeBytes }]: [string, { type: string; sizeBytes: string }]): boolean =>
      type === 'file' && sizeBytes !== '0'
    const files = [...tree].filter(isFile).map(([path]) => path)
    const [ext4, erofs] = [await recordDrive('ext4'), await recordDrive('erofs')]
    recorded.push({
      name,
      reference,
      directory: unpacked,
      tree,
      files,
      drives: { ext4: ext4.copy, erofs: erofs.copy },
      driveBytes: { ext4: ext4.sizeBytes, erofs: erofs.sizeBytes },
    })

    async function recordDrive(format: Format): Promise<{ copy: string; sizeBytes: number }> {
      await node.cli(['seed', reference, '--format', format])
      const mountPoint = join(node.host.directory, `record-${name}-${format}`)
      await mkdir(mountPoint)
      const printed = await node.cli(['mount', reference, mountPoint, '--format', format, '--json'])
      const { rootfs, sizeBytes } = JSON.parse(printed) as { rootfs: string; sizeBytes: number }
      const copy = join(directory, `${name}.${format}`)
      await copyFile(rootfs, copy)
      await node.unmount(mountPoint)
      return { copy, sizeBytes }
    }
  }
  return recorded
}

/** The directory below which a host's mounts stand. */
export function mountsDirectory(host: LabHost): string {
  return join(host.directory, 'mounts')
}
