import { resolve } from 'node:path'
import type { PushRequest, PushResult } from '../node/control/api.ts'
import { parsePushRequest } from '../node/control/requests.ts'
import { absoluteImage, checkRequest, imageArgument, platformOption } from './arguments.ts'
import { authOptions, withAuth } from './auth.ts'
import { describeCommand, parseCommand } from './command.ts'
import { callWithProgress, progressOption } from './progress.ts'
import { formatSize } from './size.ts'

export const command = describeCommand({
  name: 'push',
  usage: ['IMAGE TARGET'],
  text: `Puts a raw image (p2pfs import --raw) into a registry under the name TARGET, compressed, and publishes its
index beside it, signed with this host's key. Other regions mount it by that name. Layers that the
registry has are not sent again: a layer is 64 MiB of the image, or more in a large one.`,
  positionals: { ...imageArgument, TARGET: { help: 'a name in a registry: host:5000/disks/app:v2' } },
  options: { ...platformOption, ...authOptions, ...progressOption },
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
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
