import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson } from './output.ts'

export const command = describeCommand({
  name: 'umount',
  usage: ['DIR'],
  text: 'Ends a mount, and removes its scratch drive or overlay. Fetched data stays on this host.',
  positionals: { DIR: { completes: 'directory' } },
  options: {},
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const directory = resolve(parsed.positionals[0] ?? '')
  await call('umount', { directory }, { socket: parsed.control })
  if (parsed.json) printJson({ directory })
  return 0
}
