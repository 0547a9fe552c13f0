import { resolve } from 'node:path'
import { call } from '../node/control/client.ts'
import { commonHelp, parseCommon } from './arguments.ts'
import { printJson } from './output.ts'

const help = `Ends a mount, and removes its scratch drive or overlay. Fetched data stays on this host.

Usage: p2pfs umount DIR [OPTION...]

${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['DIR'], {})
  if (parsed === undefined) return 0
  const directory = resolve(parsed.positionals[0] ?? '')
  await call('umount', { directory }, { socket: parsed.control })
  if (parsed.json) printJson({ directory })
  return 0
}
