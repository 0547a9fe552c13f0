import { systemClock } from '../node/base/clock.ts'
import type { Status } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { printJson, printLines, printNote } from './output.ts'
import { Screen } from './watch/screen.ts'
import { watch } from './watch/watch.ts'

/**
 * `p2pfs status --watch`: until Ctrl-C.
 * @returns 0
 */
export async function watchStatus(
  { control: socket, json }: { control: string; json: boolean },
  { describeWaiting }: { describeWaiting: (status: Status) => string[] },
): Promise<number> {
  const ended = new AbortController()
  const end = (): void => ended.abort()
  process.on('SIGINT', end).on('SIGTERM', end).on('SIGHUP', end)
  const { stdout } = process
  const screen = stdout.isTTY && !json ? new Screen(stdout) : undefined
  try {
    await watch(
      {
        status: async ({ signal }) => await call('status', {}, { socket, signal }),
        seeds: async ({ signal }) => (await call('listSeeds', {}, { socket, signal })).seeds,
        describeWaiting,
        show: (lines, { status, rates }) => {
          if (json) printJson({ ...status, rates })
          else if (screen === undefined) printLines([...lines, ''])
          else screen.draw([...lines, '', 'Ctrl-C ends this'])
        },
        showLost: (message) =>
          screen === undefined ? printNote(message) : screen.draw([message, '', 'Ctrl-C ends this']),
        clock: systemClock,
      },
      { signal: ended.signal },
    )
  } finally {
    screen?.close()
  }
  return 0
}
