import { resolve } from 'node:path'
import type { ImportRequest, SeedResult } from '../node/control/api.ts'
import { absoluteImage, commonHelp, imageHelp, imageOptions, parseCommon } from './arguments.ts'
import { callWithProgress } from './progress.ts'
import { describeSeeded } from './seed.ts'

const help = `Makes an image without a registry, called local:NAME; every host of the region can mount it by that name.

Usage: p2pfs import SOURCE NAME [OPTION...]

  SOURCE  a directory (its tree, with owners, attributes and holes), a tar (plain, gzip or zstd), or oci:DIR[:TAG]
  NAME    lower-case letters, digits, and . _ - / between them, then maybe a tag: app, team/app:v2

Importing under a name that there is replaces what it stands for; what is mounted stays as it is. The daemon reads the
source, so it must be able to. Only hosts that have the chunks can deliver them: seed such an image on more than one.

${imageHelp('ext4')}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['SOURCE', 'NAME'], imageOptions)
  if (parsed === undefined) return 0
  const [source = '', name = ''] = parsed.positionals
  const request: ImportRequest = {
    source: source.startsWith('oci:') ? absoluteImage(source, resolve) : resolve(source),
    name,
    ...parsed.values,
  }
  await callWithProgress<SeedResult>('/import', request, parsed, describeSeeded)
  return 0
}
