import { resolve } from 'node:path'
import type { PushRequest, PushResult } from '../node/control/api.ts'
import { parsePushRequest } from '../node/control/requests.ts'
import { absoluteImage, checkRequest, commonHelp, imageNames, parseCommon } from './arguments.ts'
import { authHelp, authOptions, withAuth } from './auth.ts'
import { callWithProgress } from './progress.ts'
import { formatSize } from './size.ts'

const help = `Puts a raw image (p2pfs import --raw) into a registry under the name TARGET, compressed, and publishes its
index beside it, signed with this host's key. Other regions mount it by that name. Layers that the
registry has are not sent again: a layer is 64 MiB of the image, or more in a large one.

Usage: p2pfs push IMAGE TARGET [OPTION...]

${imageNames}
  TARGET a name in a registry: host:5000/disks/app:v2

  --platform OS/ARCH  platform of the image [the daemon's --platform]
${authHelp.replace("the image's", "the target's")}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE', 'TARGET'], { platform: { type: 'string' }, ...authOptions })
  if (parsed === undefined) return 0
  const [image = '', target = ''] = parsed.positionals
  const { auth, rest } = await withAuth(target, parsed.values)
  const request: PushRequest = checkRequest(parsePushRequest, {
    image: absoluteImage(image, resolve),
    target,
    ...rest,
    ...auth,
  })
  await callWithProgress('push', request, parsed, describe)
  return 0
}

function describe({ reference, platform, sizeBytes, compressedBytes, digest, published }: PushResult): string[] {
  return [
    `${reference} (${platform}, raw): ${formatSize(sizeBytes)}, ${formatSize(compressedBytes)} in the registry, rootfs ${digest}`,
    `published: ${published.digest}, signed by ${published.key}`,
  ]
}
