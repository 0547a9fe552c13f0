import { resolve } from 'node:path'
import type { Placed } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { commonHelp, parseCommon } from './arguments.ts'

const help = `Gives a mount a fresh scratch drive, or a writable tree a fresh upper layer; what was written is gone. The image is neither
fetched nor built again. Stop the VM first: it would go on with the old drive; a tree must not be in use.

Usage: p2pfs reset DIR [OPTION...]

Prints {"rootfs", "scratch"}: the same paths as before.

${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['DIR'], {})
  if (parsed === undefined) return 0
  const result = await call<Placed>(
    'POST',
    '/reset',
    { directory: resolve(parsed.positionals[0] ?? '') },
    { socket: parsed.control },
  )
  process.stdout.write(`${JSON.stringify(result)}\n`)
  return 0
}
