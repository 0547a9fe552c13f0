import { call } from '../node/control/client.ts'
import { limitNames, type LimitName, type LimitReport } from '../node/control/api.ts'
import { describeCommand, parseCommand } from './command.ts'
import { UsageError } from './failure.ts'
import { printJson, printLines } from './output.ts'
import { parseRateLimit } from '../node/base/byte-rate.ts'

export const command = describeCommand({
  name: 'limits',
  usage: [''],
  text: `Shows the limits on this host's bandwidth, and what passes now, over five seconds. With options it changes limits at
once; they stay until they are changed again, also when the daemon is started anew.`,
  positionals: {},
  options: {
    upload: { value: 'RATE', help: 'to peers; 2Mbit or more' },
    download: { value: 'RATE', help: 'from peers and registries' },
    registry: { value: 'RATE', help: 'from registries: layers and publications' },
    seed: { value: 'RATE', help: 'what seeds get on this host, from wherever it comes' },
    neighbour: { value: 'RATE', help: 'from neighbour regions; beyond it the registry is read' },
    guest: { value: 'RATE', help: 'to hosts of other regions; 2Mbit or more' },
    hot: { value: 'RATE', help: 'images that the region mounts often, from wherever they come' },
    reset: { help: 'back to the options of the daemon; other options are set after that' },
  },
  notes: `RATE is a number with kbit, Mbit, Gbit, kB, MB, GB or MiB, a second, or none. A read that somebody waits for goes first: it
borrows up to a second of the limit, and what nobody waits for comes after that, seeds last.`,
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const { control: socket, json, values } = parsed
  const set: Partial<Record<LimitName, string>> = {}
  for (const name of limitNames) {
    const rate = values[name]
    if (rate === undefined) continue
    try {
      parseRateLimit(rate)
    } catch (error) {
      throw new UsageError(`--${name}: ${(error as Error).message}`)
    }
    set[name] = rate
  }
  const isShown = Object.keys(set).length === 0 && values.reset !== true
  const result = isShown
    ? await call('limits', {}, { socket })
    : await call('changeLimits', { set, reset: values.reset === true }, { socket })
  if (json) printJson(result)
  else printLines(result.limits.map(describeLimit))
  return 0
}

/** One limit, in a line. */
export function describeLimit(limit: LimitReport): string {
  const { name, rate, isChanged, bytesPerSecond, waiting, waits, urgentWaits, urgentWaitedMs } = limit
  const kept = rate === 'none' ? 'no limit' : `${rate}${rate.endsWith('B') ? '/s' : ''}`
  const now = `${((bytesPerSecond * 8) / 1e6).toFixed(1)} Mbit/s now`
  const waited = waits === 0 ? '' : `; ${waits} ${waits === 1 ? 'piece' : 'pieces'} waited for it, ${waiting} wait now`
  const delayed =
    urgentWaits === 0 ? '' : `; ${urgentWaits} of them for reads, ${(urgentWaitedMs / urgentWaits).toFixed(0)} ms each`
  return `${name.padEnd(10)}${kept}${isChanged ? ' (changed)' : ''}, ${now}${waited}${delayed}`
}
