import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { parseImageRequest } from '../node/control/requests.ts'
import { checkRequest, commonHelp, imageNames, imageOptions, imageRequest, parseCommon } from './arguments.ts'
import { printJson, printLines } from './output.ts'
import { formatAmount } from './size.ts'

const help = `Removes an image from this host: its records, and the data that no other image here has. An image that is mounted or pinned
stays. What is in a registry or on other hosts can be fetched again; local:NAME may be nowhere else, and is gone then.

Usage: p2pfs rm IMAGE [OPTION...]

${imageNames}

  --platform OS/ARCH  this platform only [all that are here]
  --format FORMAT     this format only [all that are here]
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE'], imageOptions)
  if (parsed === undefined) return 0
  const request = checkRequest(parseImageRequest, imageRequest(parsed.positionals[0] ?? '', parsed.values, resolve))
  const result = await call('removeImage', request, { socket: parsed.control })
  if (parsed.json) printJson(result)
  else
    printLines([
      ...result.removed.map(
        ({ reference, platform, format, digest }) => `removed ${reference} (${platform}, ${format}), ${digest}`,
      ),
      `${formatAmount(result.freed)} were of no other image`,
    ])
  return 0
}
