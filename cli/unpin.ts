import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { parseImageRequest } from '../node/control/requests.ts'
import { checkRequest, commonHelp, imageNames, imageOptions, imageRequest, parseCommon } from './arguments.ts'
import { printJson, printLines } from './output.ts'

const help = `Ends what p2pfs pin has begun: the image may be evicted again. Pins of seeds end with p2pfs seeds cancel.

Usage: p2pfs unpin IMAGE [OPTION...]

${imageNames}

  --platform OS/ARCH  this platform only [all that are pinned]
  --format FORMAT     this format only [all that are pinned]
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE'], imageOptions)
  if (parsed === undefined) return 0
  const request = checkRequest(parseImageRequest, imageRequest(parsed.positionals[0] ?? '', parsed.values, resolve))
  const result = await call('unpin', request, { socket: parsed.control })
  if (parsed.json) printJson(result)
  else
    printLines(
      result.images.map(
        ({ reference, platform, format }) => `${reference} (${platform}, ${format}) is no longer pinned`,
      ),
    )
  return 0
}
