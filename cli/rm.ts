import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { parseImageRequest } from '../node/control/requests.ts'
import { checkRequest, hereOptions, imageArgument, imageRequest } from './arguments.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson, printLines } from './output.ts'
import { formatAmount } from './size.ts'

export const command = describeCommand({
  name: 'rm',
  usage: ['IMAGE'],
  text: `Removes an image from this host: its records, and the data that no other image here has. An image that is mounted or pinned
stays. What is in a registry or on other hosts can be fetched again; local:NAME may be nowhere else, and is gone then.`,
  positionals: imageArgument,
  options: hereOptions('all that are here'),
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
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
