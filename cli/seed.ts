import { resolve } from 'node:path'
import type { SeedRequest, SeedResult } from '../node/control/api.ts'
import { commonHelp, imageHelp, imageNames, imageOptions, imageRequest, parseCommon } from './arguments.ts'
import { callWithProgress } from './progress.ts'
import { formatSize } from './size.ts'

const help = `Makes an image whole on this host, so that it and its peers can mount it without the registry.
Ends when every chunk is on the disk. Seeding what is here already is quick: it only asks whether the tag has moved.

Usage: p2pfs seed IMAGE [OPTION...]

${imageNames}

${imageHelp('ext4')}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE'], imageOptions)
  if (parsed === undefined) return 0
  const request: SeedRequest = imageRequest(parsed.positionals[0] ?? '', parsed.values, resolve)
  await callWithProgress<SeedResult>('/seed', request, parsed, describeSeeded)
  return 0
}

export function describeSeeded({ reference, platform, format, sizeBytes, digest }: SeedResult): string {
  return `${reference} (${platform}, ${format}): ${formatSize(sizeBytes)} whole on this host, rootfs ${digest}`
}
