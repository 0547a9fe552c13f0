import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { parsePinRequest } from '../node/control/requests.ts'
import { checkRequest, commonHelp, imageNames, imageOptions, imageRequest, parseCommon } from './arguments.ts'
import { printJson, printLines } from './output.ts'
import { formatSize } from './size.ts'
import { parseMs } from './time.ts'

const help = `Keeps an image on this host: nothing of it is evicted, of what is here and of what comes. It fetches nothing: p2pfs seed
does. The pin is for what the name stands for now.

Usage: p2pfs pin IMAGE [OPTION...]

${imageNames}

  --ttl TIME          how long, such as 90m or 24h [until p2pfs unpin]
  --platform OS/ARCH  this platform only [all that are here]
  --format FORMAT     this format only [all that are here]
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE'], { ...imageOptions, ttl: { type: 'string' } })
  if (parsed === undefined) return 0
  const { ttl, ...values } = parsed.values
  const request = checkRequest(parsePinRequest, {
    ...imageRequest(parsed.positionals[0] ?? '', values, resolve),
    ...(ttl !== undefined && { ttlMs: parseMs(ttl, '--ttl') }),
  })
  const result = await call('pin', request, { socket: parsed.control })
  if (parsed.json) printJson(result)
  else
    printLines(
      result.images.map(
        ({ reference, platform, format, sizeBytes, localBytes = 0 }) =>
          `pinned ${reference} (${platform}, ${format})${result.until === undefined ? '' : ` until ${result.until}`}: ` +
          `${formatSize(localBytes)} of ${formatSize(sizeBytes)} here`,
      ),
    )
  return 0
}
