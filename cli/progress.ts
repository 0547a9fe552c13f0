import { formatSize } from './size.ts'

export interface ProgressBar {
  show: (progress: { step: string; doneBytes: number; totalBytes: number }) => void
  end: () => void
}

/** A bar on stderr where a person looks at it; undefined elsewhere. */
export async function progressBar({ json }: { json: boolean }): Promise<ProgressBar | undefined> {
  if (!process.stderr.isTTY || json) return undefined
  const { default: progress } = await import('cli-progress')
  const bar = new progress.SingleBar({ format: '{step} [{bar}] {percentage}%  {done} of {size}  ETA {eta_formatted}', hideCursor: true })
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
