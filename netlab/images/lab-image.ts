import { join } from 'node:path'
import { run } from '../hosts/process.ts'

/** An image in an OCI layout. */
export interface LabImage {
  layoutDirectory: string
  tag: string
}

/**
 * Unpacks an image with umoci. Its tree is the truth that all others are compared with. As root.
 *
 * @returns the root directory of the tree, which is `rootfs` in `bundleDirectory`
 */
export async function unpackWithUmoci(
  { layoutDirectory, tag }: LabImage,
  bundleDirectory: string,
  { signal }: { signal?: AbortSignal } = {},
): Promise<string> {
  await run('umoci', ['unpack', '--image', `${layoutDirectory}:${tag}`, bundleDirectory], { ...(signal && { signal }) })
  return join(bundleDirectory, 'rootfs')
}
