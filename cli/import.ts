import { resolve } from 'node:path'
import type { ImportRequest, SeedResult } from '../node/control/api.ts'
import { parseImportRequest } from '../node/control/requests.ts'
import {
  absoluteImage,
  checkFormat,
  checkRequest,
  commonHelp,
  imageHelp,
  imageOptions,
  parseCommon,
} from './arguments.ts'
import { callWithProgress } from './progress.ts'
import { describeSeeded } from './seed.ts'

const help = `Makes the image local:NAME without a registry. Every host of the region can mount it by that name.

Usage: p2pfs import SOURCE NAME [OPTION...]

  SOURCE  a directory (with owners, attributes and holes), a tar file (plain, gzip or zstd), or oci:DIR[:TAG]
  NAME    lower-case letters and digits, with . _ - / between them, and optionally a tag: app, team/app:v2

If NAME exists, it stands for the new image from now on; existing mounts keep the old one. The daemon reads SOURCE, so
it needs access to it. Only hosts that have the chunks can deliver them: seed such an image on more than one host.

${imageHelp('ext4')}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['SOURCE', 'NAME'], imageOptions)
  if (parsed === undefined) return 0
  const [source = '', name = ''] = parsed.positionals
  checkFormat(parsed.values.format)
  const request: ImportRequest = checkRequest(parseImportRequest, {
    source: source.startsWith('oci:') ? absoluteImage(source, resolve) : resolve(source),
    name,
    ...parsed.values,
  })
  await callWithProgress<SeedResult>('/import', request, parsed, describeSeeded)
  return 0
}
