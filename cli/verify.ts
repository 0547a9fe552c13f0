import { resolve } from 'node:path'
import type { VerifiedUse, VerifyRequest, VerifyResult } from '../node/control/api.ts'
import { commonHelp, imageHelp, imageNames, imageOptions, imageRequest, parseCommon } from './arguments.ts'
import { callWithProgress } from './progress.ts'

const help = `Rebuilds the root filesystem of an image from its layers in the registry, and compares it with what this host, its region
and publications in the registry have for it. Reads every layer once; nothing of that is kept.

Usage: p2pfs verify IMAGE [OPTION...]

${imageNames}

Exit status: 0 where nothing is different, 1 where something is.

${imageHelp('ext4')}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE'], imageOptions)
  if (parsed === undefined) return 0
  const request: VerifyRequest = imageRequest(parsed.positionals[0] ?? '', parsed.values, resolve)
  const { same } = await callWithProgress<VerifyResult>('/verify', request, parsed, describe)
  return same ? 0 : 1
}

const sources = { host: 'this host', region: 'its region', registry: 'published' } as const

function describe({ reference, platform, format, manifestDigest, digest, same, uses }: VerifyResult): string {
  const lines = [
    `${reference} (${platform}, ${format}), image manifest ${manifestDigest}`,
    `layers make   rootfs ${digest}`,
    ...uses.flatMap((use) => [
      `${sources[use.source].padEnd(14)}${describeUse(use)}`,
      ...use.layers.map(
        ({ digest: layer, chunks, index, map }) =>
          `  ${layer}: chunks ${chunks}, layer index ${index}, blob map ${map}`,
      ),
    ]),
    `result        ${uses.length === 0 ? 'nobody has anything for it' : same ? 'the same' : 'DIFFERENT: what is used is not what the layers make; do not run it'}`,
  ]
  return lines.join('\n')
}

function describeUse({ rootfs, digest, maker, own, accepted, error }: VerifiedUse): string {
  const who = `attested by ${maker}${own ? ' (this host)' : accepted ? '' : ', who is not accepted here'}`
  return `${rootfs}: rootfs ${digest}, ${who}${error === undefined ? '' : `: ${error}`}`
}
