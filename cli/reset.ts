import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson } from './output.ts'
import { noteRestriction } from './restriction.ts'

export const command = describeCommand({
  name: 'reset',
  usage: ['DIR'],
  text: `Replaces the scratch drive of a mount, or the overlay of a writable tree, with an empty one. Everything
written there is lost. The image is neither fetched nor built again. Stop the VM first, or it continues
with the old drive. A tree must not be in use.`,
  positionals: { DIR: { completes: 'directory' } },
  options: {},
  notes: 'Prints a JSON object with the paths "rootfs" and "scratch", which are the same as before.',
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const directory = resolve(parsed.positionals[0] ?? '')
  const result = await call('reset', { directory }, { socket: parsed.control })
  noteRestriction(result)
  printJson(result)
  return 0
}
