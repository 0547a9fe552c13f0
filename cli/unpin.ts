import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { parseImageRequest } from '../node/control/requests.ts'
import { checkRequest, hereOptions, imageArgument, imageRequest } from './arguments.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson, printLines } from './output.ts'

export const command = describeCommand({
  name: 'unpin',
  usage: ['IMAGE'],
  text: 'Ends what p2pfs pin has begun: the image may be evicted again. Pins of seeds end with p2pfs seeds cancel.',
  positionals: imageArgument,
  options: hereOptions('all that are pinned'),
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
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
