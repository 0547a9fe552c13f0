import { resolve } from 'node:path'
import type { VerifiedUse, VerifyRequest, VerifyResult } from '../node/control/api.ts'
import { parseAuthorizedRequest } from '../node/control/requests.ts'
import { checkRequest, imageArgument, imageOptions, imageRequest } from './arguments.ts'
import { authOptions, withAuth } from './auth.ts'
import { describeCommand, parseCommand } from './command.ts'
import { callWithProgress, progressOption } from './progress.ts'

export const command = describeCommand({
  name: 'verify',
  usage: ['IMAGE'],
  text: `Rebuilds the root filesystem of an image from its layers in the registry, and compares it with what this
host, its region and the publications in the registry use for it. Reads every layer once and keeps
nothing of it.`,
  positionals: imageArgument,
  options: { ...authOptions, ...imageOptions('ext4'), ...progressOption },
  notes: 'Exit status: 0 if everything agrees, 1 if something differs.',
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const [image = ''] = parsed.positionals
  const { auth, rest } = await withAuth(image, parsed.values)
  const request: VerifyRequest = checkRequest(parseAuthorizedRequest, {
    ...imageRequest(image, rest, resolve),
    ...auth,
  })
  const { same } = await callWithProgress('verify', request, parsed, describe)
  return same ? 0 : 1
}

const sources = { host: 'this host', region: 'its region', registry: 'published' } as const

const different = 'DIFFERENT: what is in use does not match the layers; do not run it'

function describe({ reference, platform, format, manifestDigest, digest, same, uses }: VerifyResult): string[] {
  return [
    `${reference} (${platform}, ${format}), image manifest ${manifestDigest}`,
    `layers make   rootfs ${digest}`,
    ...uses.flatMap((use) => [
      `${sources[use.source].padEnd(14)}${describeUse(use)}`,
      ...use.layers.map(
        ({ digest: layer, chunks, index, map }) =>
          `  ${layer}: chunks ${chunks}, layer index ${index}, blob map ${map}`,
      ),
    ]),
    `result        ${uses.length === 0 ? 'nobody knows this image' : same ? 'the same' : different}`,
  ]
}

function describeUse({ rootfs, digest, maker, own, accepted, error }: VerifiedUse): string {
  const who = `signed by ${maker}${own ? ' (this host)' : accepted ? '' : ', a key that this host does not accept'}`
  return `${rootfs}: rootfs ${digest}, ${who}${error === undefined ? '' : `: ${error}`}`
}
