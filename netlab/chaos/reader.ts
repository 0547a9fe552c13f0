import { fork, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { ReadJob, ReadReport } from './reader-main.ts'

const program = fileURLToPath(new URL('./reader-main.ts', import.meta.url))

/** The end of a job; `hangs` if no piece came for too long. */
export type ReadOutcome = Exclude<ReadReport, 'piece'> | 'hangs'

/** A process that reads, so that a read that hangs holds up nobody else. */
export class Reader {
  #process: ChildProcess | undefined

  /**
   * Runs one job to its end.
   * @param isTooLate tells whether a piece that was begun at the given time (`performance.now()`) takes too long
   */
  async run(job: ReadJob, isTooLate: (pieceBegunAt: number) => boolean): Promise<ReadOutcome> {
    const reader = (this.#process ??= fork(program, { execArgv: ['--disable-warning=ExperimentalWarning'] }))
    let pieceBegunAt = performance.now()
    return await new Promise<ReadOutcome>((resolve) => {
      const finish = (outcome: ReadOutcome): void => {
        clearInterval(timer)
        reader.off('message', onReport).off('exit', onExit)
        resolve(outcome)
      }
      const onReport = (report: ReadReport): void => {
        if (report === 'piece') pieceBegunAt = performance.now()
        else finish(report)
      }
      const onExit = (): void => {
        this.#process = undefined
        finish({ error: 'the reader has ended', offset: job.offset })
      }
      const timer = setInterval(() => {
        if (!isTooLate(pieceBegunAt)) return
        this.stop()
        finish('hangs')
      }, 500)
      reader.on('message', onReport).on('exit', onExit)
      reader.send(job)
    })
  }

  /** Kills the process. */
  stop(): void {
    this.#process?.kill('SIGKILL')
    this.#process = undefined
  }
}
