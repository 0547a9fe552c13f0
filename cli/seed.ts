import { resolve } from 'node:path'
import type { SeedRequest, SeedResult } from '../node/control/api.ts'
import { commonHelp, imageHelp, imageNames, imageOptions, imageRequest, parseCommon } from './arguments.ts'
import { callWithProgress } from './progress.ts'
import { formatSize } from './size.ts'

const help = `Makes an image whole on this host, so that it and its peers can mount it without the registry.
Ends when every chunk is on the disk. Seeding what is here already is quick: it only asks whether the tag has moved.

Usage: p2pfs seed IMAGE [OPTION...]

${imageNames}

  --publish  then put the index into the image's repository, beside the image, signed with this host's key: hosts that accept
             the key (--trust-index-key of p2pfs daemon) mount the image from its registry without reading its layers

${imageHelp('ext4')}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE'], { publish: { type: 'boolean' }, ...imageOptions })
  if (parsed === undefined) return 0
  const { publish = false, ...variant } = parsed.values
  const request: SeedRequest = { ...imageRequest(parsed.positionals[0] ?? '', variant, resolve), publish }
  await callWithProgress<SeedResult>('/seed', request, parsed, describeSeeded)
  return 0
}

export function describeSeeded({ reference, platform, format, sizeBytes, digest, published }: SeedResult): string {
  const seeded = `${reference} (${platform}, ${format}): ${formatSize(sizeBytes)} whole on this host, rootfs ${digest}`
  if (published === undefined) return seeded
  return `${seeded}\n${published.existed ? 'was published already' : 'published'}: ${published.digest}, ${formatSize(published.sizeBytes)}, attested by ${published.key}`
}
