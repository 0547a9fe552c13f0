import { resolve } from 'node:path'
import type { ExportRequest } from '../node/control/api.ts'
import { parseExportRequest } from '../node/control/requests.ts'
import { checkRequest, imageArgument, imageOptions, imageRequest } from './arguments.ts'
import { describeCommand, parseCommand } from './command.ts'
import { callWithProgress, progressOption } from './progress.ts'
import { formatSize } from './size.ts'

export const command = describeCommand({
  name: 'export',
  usage: ['IMAGE FILE'],
  text: `Writes the complete block image of an image to a file, for programs that cannot use a mount. FILE
appears once everything is written, and replaces an existing file. Zeros become holes.`,
  positionals: { ...imageArgument, FILE: { completes: 'file' } },
  options: { ...imageOptions('ext4'), ...progressOption },
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
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
