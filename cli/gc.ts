import type { GcResult } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson, printLines } from './output.ts'
import { formatAmount, formatSize } from './size.ts'

export const command = describeCommand({
  name: 'gc',
  usage: [''],
  text: `Removes what no image of this host needs: images that no name stands for any more, layers of imports that were given up, and
their data; and what is beyond --store-limit and --store-keep-free, which is otherwise evicted in the background. What is
mounted, pinned, or being seeded or imported stays.`,
  positionals: {},
  options: { 'dry-run': { help: 'say what would be removed, and remove nothing' } },
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const request = { dryRun: parsed.values['dry-run'] === true }
  const result = await call('gc', request, { socket: parsed.control })
  if (parsed.json) printJson(result)
  else printLines(describe(result))
  return 0
}

function describe({ dryRun, rootfs, layers, unneeded, evicted, storeBytes, limitBytes }: GcResult): string[] {
  const limit = limitBytes === undefined ? '' : ` of ${formatSize(limitBytes)}`
  return [
    `${dryRun ? 'would remove' : 'removed'} ${rootfs} images and ${layers} layers that nothing needs, ` +
      `${formatAmount(unneeded)}; beyond the limit: ${formatAmount(evicted)}`,
    `the store has ${formatSize(storeBytes)}${limit}`,
  ]
}
