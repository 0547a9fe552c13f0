import { call } from '../node/control/client.ts'
import { describeCommand, parseCommand } from './command.ts'
import { UsageError } from './failure.ts'
import { printJson, printLines } from './output.ts'
import { describeSeedJob } from './seed-job.ts'

export const command = describeCommand({
  name: 'seeds',
  usage: ['', 'cancel ID'],
  text: `Lists the orders of p2pfs seed in the region, and which host holds how much: chunks that are on its disk, and those of
them that it has hashed since the image was pinned there. Ends one with cancel: the image is no longer pinned, and stays.`,
  positionals: {},
  options: {},
  words: ['cancel'],
})

export async function run(argv: string[]): Promise<number> {
  const isCancel = argv[0] === 'cancel'
  const parsed = parseCommand(isCancel ? argv.slice(1) : argv, command, isCancel ? ['ID'] : [])
  const { control: socket, json, positionals } = parsed
  if (isCancel) {
    const [id = ''] = positionals
    if (!/^[0-9a-f]{32}$/.test(id)) throw new UsageError('the id of a seed is 32 hexadecimal digits; see p2pfs seeds')
    const job = await call('cancelSeed', { id }, { socket })
    if (json) printJson(job)
    else printLines(describeSeedJob(job))
    return 0
  }
  const result = await call('listSeeds', {}, { socket })
  if (json) printJson(result)
  else printLines(result.seeds.length === 0 ? ['no seeds'] : result.seeds.flatMap(describeSeedJob))
  return 0
}
