import { resolve } from 'node:path'
import type { ExportRequest } from '../node/control/api.ts'
import { parseExportRequest } from '../node/control/requests.ts'
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

const help = `Writes the complete block image of an image to a file, for programs that cannot use a mount. FILE
appears once everything is written, and replaces an existing file. Zeros become holes.

Usage: p2pfs export IMAGE FILE [OPTION...]

${imageNames}

${imageHelp('ext4')}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE', 'FILE'], imageOptions)
  if (parsed === undefined) return 0
  const [image = '', file = ''] = parsed.positionals
  const request: ExportRequest = checkRequest(parseExportRequest, {
    ...imageRequest(image, parsed.values, resolve),
    file: resolve(file),
  })
  await callWithProgress('export', request, parsed, ({ file, sizeBytes, digest }) => [
    `${file}: ${formatSize(sizeBytes)}, rootfs ${digest}`,
  ])
  return 0
}
