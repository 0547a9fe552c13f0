import type { Progress } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import type { OperationName, RequestOf, ResultOf } from '../node/control/operations.ts'
import { printJson, printLines } from './output.ts'
import { formatSize } from './size.ts'

interface ProgressBar {
  show: (progress: Progress['progress']) => void
  end: () => void
}

/**
 * Sends a long request to the daemon, with a progress bar if stderr is a terminal.
 * Prints the result on stdout: as JSON, or without `--json` as the lines of `describe`.
 */
export async function callWithProgress<Name extends OperationName>(
  name: Name,
  request: RequestOf<Name>,
  { control, json }: { control: string; json: boolean },
  describe: (result: ResultOf<Name>) => string[],
): Promise<ResultOf<Name>> {
  const bar = process.stderr.isTTY && !json ? await progressBar() : undefined
  let result: ResultOf<Name>
  try {
    result = await call(name, request, { socket: control, onProgress: (progress) => bar?.show(progress) })
  } finally {
    bar?.end()
  }
  if (json) printJson(result)
  else printLines(describe(result))
  return result
}

async function progressBar(): Promise<ProgressBar> {
  const { default: progress } = await import('cli-progress')
  const bar = new progress.SingleBar({
    format: '{step} [{bar}] {percentage}%  {done} of {size}  ETA {eta_formatted}',
    hideCursor: true,
  })
  let step: string | undefined
  return {
    show: (now) => {
      const payload = { step: now.step, done: formatSize(now.doneBytes), size: formatSize(now.totalBytes) }
      if (step !== now.step) {
        bar.stop()
        bar.start(now.totalBytes, now.doneBytes, payload)
        step = now.step
      } else {
        bar.setTotal(now.totalBytes)
        bar.update(now.doneBytes, payload)
      }
    },
    end: () => bar.stop(),
  }
}
