import { resolve } from 'node:path'
import type { MountRequest, MountResult } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { absoluteImage, commonHelp, parseCommon, platformHelp } from './arguments.ts'

const help = `Mounts the rootfs of an image on DIR: DIR/rootfs.img is the block image, for a VM's drive or a loop device.

Usage: p2pfs mount IMAGE DIR [OPTION...]

  IMAGE  as Docker writes it (debian:12, host:5000/app@sha256:...) or oci:DIR[:TAG], an OCI layout on disk
  DIR    an existing directory

Prints {"rootfs", "format", "digest", "sizeBytes", "origin", "config"}: the path of the image file, its filesystem,
its digest, where its manifest came from, and the OCI image config. Its content is fetched when it is read. An image
that nobody in the region has seeded is imported first, which takes as long as it takes to read all of it.

${platformHelp}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE', 'DIR'])
  if (parsed === undefined) return 0
  const [image = '', directory = ''] = parsed.positionals
  const request: MountRequest = {
    image: absoluteImage(image, resolve),
    directory: resolve(directory),
    ...(parsed.platform === undefined ? {} : { platform: parsed.platform }),
  }
  const result = await call<MountResult>('POST', '/mount', request, { socket: parsed.control })
  process.stdout.write(`${JSON.stringify(result)}\n`)
  return 0
}
