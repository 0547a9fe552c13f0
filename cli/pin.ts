import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { parsePinRequest } from '../node/control/requests.ts'
import { checkRequest, hereOptions, imageArgument, imageRequest } from './arguments.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson, printLines } from './output.ts'
import { formatSize } from './size.ts'
import { parseMs } from './time.ts'

export const command = describeCommand({
  name: 'pin',
  usage: ['IMAGE'],
  text: `Keeps an image on this host: nothing of it is evicted, of what is here and of what comes. It fetches nothing: p2pfs seed
does. The pin is for what the name stands for now.`,
  positionals: imageArgument,
  options: {
    ttl: { value: 'TIME', help: 'how long, such as 90m or 24h', fallback: 'until p2pfs unpin' },
    ...hereOptions('all that are here'),
  },
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
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
