import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { commonHelp, parseCommon } from './arguments.ts'
import { printJson } from './output.ts'
import { noteRestriction } from './restriction.ts'

const help = `Replaces the scratch drive of a mount, or the overlay of a writable tree, with an empty one. Everything
written there is lost. The image is neither fetched nor built again. Stop the VM first, or it continues
with the old drive. A tree must not be in use.

Usage: p2pfs reset DIR [OPTION...]

Prints a JSON object with the paths "rootfs" and "scratch", which are the same as before.

${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['DIR'], {})
  if (parsed === undefined) return 0
  const directory = resolve(parsed.positionals[0] ?? '')
  const result = await call('reset', { directory }, { socket: parsed.control })
  noteRestriction(result)
  printJson(result)
  return 0
}
