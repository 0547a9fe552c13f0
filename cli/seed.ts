import { resolve } from 'node:path'
import type { SeedRequest, SeedResult } from '../node/control/api.ts'
import { parseSeedRequest } from '../node/control/requests.ts'
import {
  checkRequest,
  commonHelp,
  imageHelp,
  imageNames,
  imageOptions,
  imageRequest,
  parseCommon,
} from './arguments.ts'
import { callWithProgress } from './progress.ts'
import { formatSize } from './size.ts'

const help = `Fetches all of an image to this host, so that this host and its peers can mount it without the registry.
Ends when every chunk is on the disk. If all of it is here already, seed only asks the registry whether
the tag has changed.

Usage: p2pfs seed IMAGE [OPTION...]

${imageNames}

  --publish  then publish the index in the image's repository, signed with this host's key. Hosts that accept the key
             (p2pfs daemon --trust-index-key) mount the image from its registry without reading its layers

${imageHelp('ext4')}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE'], { publish: { type: 'boolean' }, ...imageOptions })
  if (parsed === undefined) return 0
  const { publish = false, ...variant } = parsed.values
  const request: SeedRequest = checkRequest(parseSeedRequest, {
    ...imageRequest(parsed.positionals[0] ?? '', variant, resolve),
    publish,
  })
  await callWithProgress<SeedResult>('/seed', request, parsed, describeSeeded)
  return 0
}

export function describeSeeded({ reference, platform, format, sizeBytes, digest, published }: SeedResult): string[] {
  const seeded = `${reference} (${platform}, ${format}): ${formatSize(sizeBytes)}, all on this host, rootfs ${digest}`
  if (published === undefined) return [seeded]
  const { existed, digest: artifact, sizeBytes: artifactBytes, key } = published
  const state = existed ? 'was already published' : 'published'
  return [seeded, `${state}: ${artifact}, ${formatSize(artifactBytes)}, signed by ${key}`]
}
